# Who may do what. Each part has an account of its own, and `grants` has every right that is given to anyone, with its reason;
# `python -m docs.generate` makes the table of docs/guides/cloud-bootstrap.md from it.

locals {
  accounts = {
    batch     = "Runs a Dataproc batch: driver and executors"
    build     = "Runs Cloud Build: tests, images, release, deployment"
    container = "Runs a Cloud Run job"
    scheduler = "Starts the workflow and the Cloud Run jobs on a schedule"
    workflow  = "Runs the Cloud Workflow: creates, watches and cancels batches"
  }

  # Permissions that Google's own roles only have together with many others.
  custom_roles = merge(
    {
      yieldsparkWorkflow = {
        title = "YieldSpark workflow"
        permissions = [
          "dataproc.batches.cancel",
          "dataproc.batches.create",
          "dataproc.batches.get",
          "dataproc.operations.cancel",
          "dataproc.operations.get",
          "workflows.clients.executions.list",
        ]
      }
      yieldsparkJobRunner = {
        title = "YieldSpark job runner"
        permissions = [
          "run.executions.cancel",
          "run.executions.get",
          "run.jobs.run",
          "run.jobs.runWithOverrides",
        ]
      }
      yieldsparkOperator = {
        title = "YieldSpark operator"
        permissions = [
          "run.executions.cancel",
          "run.executions.get",
          "run.jobs.run",
          "run.jobs.runWithOverrides",
          "run.tasks.list",
        ]
      }
      yieldsparkBatchReader = {
        title = "YieldSpark batch reader"
        permissions = [
          "dataproc.batches.get",
          "dataproc.batches.list",
        ]
      }
      yieldsparkWorkflowUpdater = {
        title = "YieldSpark workflow updater"
        permissions = [
          "workflows.operations.get",
          "workflows.workflows.get",
          "workflows.workflows.update",
        ]
      }
    },
    var.batch_role_without_storage ? { yieldsparkBatchWorker = local.batch_worker } : {},
  )

  # roles/dataproc.worker without its storage.*, as the page of Dataproc's roles lists it
  batch_worker = {
    title = "YieldSpark batch worker"
    permissions = [
      "cloudprofiler.profiles.create",
      "cloudprofiler.profiles.update",
      "dataproc.agents.create",
      "dataproc.agents.delete",
      "dataproc.agents.get",
      "dataproc.agents.list",
      "dataproc.agents.update",
      "dataproc.batches.sparkApplicationWrite",
      "dataproc.tasks.lease",
      "dataproc.tasks.listInvalidatedLeases",
      "dataproc.tasks.reportStatus",
      "dataprocrm.nodes.get",
      "dataprocrm.nodes.heartbeat",
      "dataprocrm.nodes.list",
      "dataprocrm.nodes.mintOAuthToken",
      "logging.logEntries.create",
      "logging.logEntries.route",
      "monitoring.metricDescriptors.create",
      "monitoring.metricDescriptors.get",
      "monitoring.metricDescriptors.list",
      "monitoring.monitoredResourceDescriptors.get",
      "monitoring.monitoredResourceDescriptors.list",
      "monitoring.timeSeries.create",
    ]
  }
  replaced_roles = var.batch_role_without_storage ? { "roles/dataproc.worker" = "yieldsparkBatchWorker" } : {}

  # `to` is an account, or operators; `on` a kind of resource and `names` which of them.
  grants = {
    workflow_batches = {
      to     = "workflow"
      role   = "yieldsparkWorkflow"
      on     = "project"
      names  = ["project"]
      reason = "Creates, watches and cancels batches, and checks for another active execution. Neither batches nor workflows have policies of their own"
    }
    workflow_log = {
      to     = "workflow"
      role   = "roles/logging.logWriter"
      on     = "project"
      names  = ["project"]
      reason = "Writes one line for each event of a run"
    }
    workflow_acts_as_batch = {
      to     = "workflow"
      role   = "roles/iam.serviceAccountUser"
      on     = "account"
      names  = ["batch"]
      reason = "The creator of a batch must have the right to act as the account of the batch"
    }
    workflow_reads_releases = {
      to     = "workflow"
      role   = "roles/storage.objectViewer"
      on     = "bucket"
      names  = ["code"]
      reason = "Reads latest.json and the release's batches.json"
    }
    workflow_runs_jobs = {
      to     = "workflow"
      role   = "yieldsparkJobRunner"
      on     = "job"
      names  = local.batch_jobs
      reason = "Runs a job of the release in a container instead of a batch, and watches it"
    }
    workflow_runs_validation = {
      to     = "workflow"
      role   = "yieldsparkJobRunner"
      on     = "job"
      names  = ["validate"]
      reason = "Validates the tables after the jobs"
    }
    batch_works = {
      to     = "batch"
      role   = "roles/dataproc.worker"
      on     = "project"
      names  = ["project"]
      reason = "Google requires this role for a batch's account. It may write to every bucket of the project; batch_role_without_storage grants it without storage"
    }
    batch_logs_in = {
      to     = "batch"
      role   = "roles/cloudsql.instanceUser"
      on     = "project"
      names  = var.database_iam_login ? ["project"] : []
      reason = "Logs in to the database by IAM, with database_iam_login. Instances have no policies of their own"
    }
    container_logs_in = {
      to     = "container"
      role   = "roles/cloudsql.instanceUser"
      on     = "project"
      names  = var.database_iam_login ? ["project"] : []
      reason = "As the batches"
    }
    batch_reads_password = {
      to     = "batch"
      role   = "roles/secretmanager.secretAccessor"
      on     = "secret"
      names  = ["database-password"]
      reason = "The job fetches the database's password when it starts"
    }
    batch_reads_releases = {
      to     = "batch"
      role   = "roles/storage.objectViewer"
      on     = "bucket"
      names  = ["code"]
      reason = "Spark fetches the release's code and jars"
    }
    batch_writes_output = {
      to     = "batch"
      role   = "roles/storage.objectUser"
      on     = "bucket"
      names  = ["staging"]
      reason = "Dataproc stores the driver output there"
    }
    batch_writes_models = {
      to     = "batch"
      role   = "roles/storage.objectUser"
      on     = "bucket"
      names  = ["models"]
      reason = "Reads and writes the files of model versions"
    }
    batch_pulls_image = {
      to     = "batch"
      role   = "roles/artifactregistry.reader"
      on     = "repository"
      names  = ["images"]
      reason = "Pulls the image with the Python packages"
    }
    container_reads_password = {
      to     = "container"
      role   = "roles/secretmanager.secretAccessor"
      on     = "secret"
      names  = ["database-password"]
      reason = "The job fetches the database's password when it starts"
    }
    container_reads_releases = {
      to     = "container"
      role   = "roles/storage.objectViewer"
      on     = "bucket"
      names  = ["code"]
      reason = "The entry fetches the release"
    }
    container_writes_models = {
      to     = "container"
      role   = "roles/storage.objectUser"
      on     = "bucket"
      names  = ["models"]
      reason = "Reads and writes the files of model versions"
    }
    container_reads_batches = {
      to     = "container"
      role   = "yieldsparkBatchReader"
      on     = "project"
      names  = ["project"]
      reason = "yieldspark-costs reads the usage of each batch"
    }
    container_writes_series = {
      to     = "container"
      role   = "roles/monitoring.metricWriter"
      on     = "project"
      names  = ["project"]
      reason = "Writes the time series of a run, as the worker role lets a batch. Cloud Monitoring has no smaller resource"
    }
    operators_run_operator = {
      to     = "operators"
      role   = "yieldsparkOperator"
      on     = "job"
      names  = ["operator"]
      reason = "Runs commands inside the network (migrations, status, models, ..), and reads the exit code, which a task has"
    }
    operators_run_workflow = {
      to     = "operators"
      role   = "roles/workflows.invoker"
      on     = "project"
      names  = ["project"]
      reason = "Runs the pipeline immediately. Workflows have no policies of their own"
    }
    operators_read_logs = {
      to     = "operators"
      role   = "roles/logging.viewer"
      on     = "project"
      names  = ["project"]
      reason = "Follows the log of a run or a command"
    }
    operators_read_monitoring = {
      to     = "operators"
      role   = "roles/monitoring.viewer"
      on     = "project"
      names  = ["project"]
      reason = "Reads the dashboard and the alerts"
    }
    operators_read_releases = {
      to     = "operators"
      role   = "roles/storage.objectViewer"
      on     = "bucket"
      names  = ["code"]
      reason = "Lists releases, and reads settings.env"
    }
    scheduler_runs_workflow = {
      to     = "scheduler"
      role   = "roles/workflows.invoker"
      on     = "project"
      names  = ["project"]
      reason = "Starts the daily run. Workflows have no policies of their own"
    }
    scheduler_runs_jobs = {
      to     = "scheduler"
      role   = "roles/run.invoker"
      on     = "job"
      names  = ["costs", "ingest"]
      reason = "Starts the jobs with fixed arguments"
    }
    build_log = {
      to     = "build"
      role   = "roles/logging.logWriter"
      on     = "project"
      names  = ["project"]
      reason = "A build with an account of its own writes its own log"
    }
    build_pushes_images = {
      to     = "build"
      role   = "roles/artifactregistry.writer"
      on     = "repository"
      names  = ["images"]
      reason = "Checks whether an image exists, and pushes a missing one"
    }
    build_reads_releases = {
      to     = "build"
      role   = "roles/storage.objectViewer"
      on     = "bucket"
      names  = ["code"]
      reason = "Reads settings.env, and compares a release that already exists"
    }
    build_adds_releases = {
      to     = "build"
      role   = "roles/storage.objectCreator"
      on     = "bucket"
      names  = ["code"]
      reason = "Uploads a release. It can add objects, but neither replace nor delete them"
    }
    build_replaces_latest = {
      to     = "build"
      role   = "roles/storage.objectUser"
      on     = "bucket"
      names  = ["code"]
      only   = "latest.json"
      reason = "Points latest.json at the new release. Replacing an object requires the right to delete it"
    }
    build_updates_workflow = {
      to     = "build"
      role   = "yieldsparkWorkflowUpdater"
      on     = "project"
      names  = ["project"]
      reason = "Deploys pipeline.yaml. Workflows have no policies of their own"
    }
    build_updates_jobs = {
      to     = "build"
      role   = "roles/run.developer"
      on     = "job"
      names  = sort(concat(local.batch_jobs, ["costs", "ingest", "operator", "validate"]))
      reason = "Deploys the image of the Cloud Run jobs"
    }
    build_acts_as = {
      to     = "build"
      role   = "roles/iam.serviceAccountUser"
      on     = "account"
      names  = ["container", "workflow"]
      reason = "The deployer of a job or a workflow must have the right to act as its account"
    }
  }
}

resource "google_service_account" "accounts" {
  for_each = local.accounts

  account_id   = "yieldspark-${each.key}"
  display_name = "YieldSpark ${each.key}"
  description  = each.value

  depends_on = [google_project_service.apis]
}

resource "google_project_iam_custom_role" "roles" {
  for_each = local.custom_roles

  role_id     = each.key
  title       = each.value.title
  permissions = each.value.permissions

  depends_on = [google_project_service.apis]
}
