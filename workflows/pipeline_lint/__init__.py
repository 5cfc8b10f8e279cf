"""Parser of Cloud Workflows source and the rules that check pipeline.yaml before it is deployed."""
