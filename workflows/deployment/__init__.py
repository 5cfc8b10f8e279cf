"""The steps of cloudbuild.yaml: `python3 -m workflows.deployment STEP`.

Each step runs in a container of its own, on any Python from 3.11 on: the standard library, and the
programs that the step is about (git, docker, gcloud, `python -m workflows`). The checkout is the
working folder; what a step hands to later ones is a file in DEPLOYMENT_FOLDER, outside of it.
"""
