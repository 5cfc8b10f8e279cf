"""The steps of cloudbuild.yaml: `python3 -m workflows.deployment STEP`.

Each step runs in a container of its own, on any Python from 3.11 on. It imports the standard
library and modules of this repository that need nothing else, and starts git, docker, gcloud or
`python -m workflows`. A step passes files to later steps in DEPLOYMENT_FOLDER.
"""
