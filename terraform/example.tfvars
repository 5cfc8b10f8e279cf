# An environment. Copy it, and give each environment a project and a file of its own: `terraform apply -var-file=production.tfvars`.

project_id = "acme-yields"
region     = "europe-west1"

# people who may run the pipeline and the operator's commands
operators = ["group:data-engineers@example.com"]

# who gets the alerts
alert_emails = ["data-engineers@example.com"]

# an empty project has no raw rows: this fetches them before the nightly run
ingest_schedule = "30 1 * * *"

# what a merge releases; connect the repository in the console first (Cloud Build, Repositories)
# repository = "projects/acme-yields/locations/europe-west1/connections/github/repositories/yieldspark"

# false once there is a release
schedule_paused = true
