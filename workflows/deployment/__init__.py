"""The steps of cloudbuild.yaml: `python3 -m workflows.deployment STEP`.

Each step runs in a container of its own, on any Python from 3.11 on: it imports the standard
library and modules of this repository that need nothing else, and starts the programs that it is
about (git, docker, gcloud, `python -m workflows`). The checkout is the working folder. What a step
hands to later ones is a file in DEPLOYMENT_FOLDER, outside of it.
"""
