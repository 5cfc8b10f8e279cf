#!/usr/bin/env bash
# Prepares an empty project for `terraform apply`: the first APIs, the bucket of Terraform's state, and the database's password as a secret.
#
#   terraform/bootstrap.sh PROJECT_ID REGION [--rotate]
#
# What is there already stays as it is: run it again after a failure. --rotate adds a new version of the password; raise
# database_password_version and apply, and the database takes it. The password is made by the kernel, goes to Secret Manager through a pipe,
# and is printed nowhere. It needs gcloud, logged in as an owner of the project, and a billing account that is linked to it.
set -euo pipefail

SECRET=yieldspark-database-password

usage() {
  echo "usage: terraform/bootstrap.sh PROJECT_ID REGION [--rotate]" >&2
  exit 2
}

[[ $# -ge 2 && $# -le 3 && ${3:---rotate} == --rotate ]] || usage
project=$1 region=$2 rotate=${3:-}
[[ $project =~ ^[a-z][a-z0-9-]{4,28}[a-z0-9]$ ]] || {
  echo "PROJECT_ID is '$project'; allowed is a project's id: 6 to 30 of a-z, 0-9 and -" >&2
  exit 2
}
[[ $region =~ ^[a-z]+-[a-z]+[0-9]+$ ]] || {
  echo "REGION is '$region'; allowed is a region such as europe-west1" >&2
  exit 2
}
command -v gcloud >/dev/null || {
  echo "gcloud is not installed: https://cloud.google.com/sdk/docs/install" >&2
  exit 1
}
state="$project-yieldspark-state"

# An answer other than "not found" is an error, and nothing is made on top of it.
is_there() {
  local words
  words=$(gcloud "$@" --project "$project" --format 'value(name)' 2>&1) && return 0
  grep -qiE 'not.?found|404' <<<"$words" && return 1
  echo "$words" >&2
  exit 1
}

add_version() {
  head -c 36 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n' |
    gcloud secrets versions add "$SECRET" --project "$project" --data-file - --quiet >/dev/null
  echo "secret $SECRET: a new version"
}

echo "project $project: turning on the APIs that Terraform itself uses"
gcloud services enable --project "$project" --quiet \
  cloudresourcemanager.googleapis.com iam.googleapis.com secretmanager.googleapis.com \
  serviceusage.googleapis.com storage.googleapis.com

if is_there storage buckets describe "gs://$state"; then
  echo "bucket $state: is there"
else
  gcloud storage buckets create "gs://$state" --project "$project" --location "$region" \
    --uniform-bucket-level-access --public-access-prevention --quiet
  echo "bucket $state: made"
fi
gcloud storage buckets update "gs://$state" --project "$project" --versioning --quiet

if is_there secrets describe "$SECRET"; then
  echo "secret $SECRET: is there"
else
  gcloud secrets create "$SECRET" --project "$project" --replication-policy automatic --quiet
  echo "secret $SECRET: made"
fi
if [[ -n $rotate ]]; then
  add_version
elif is_there secrets versions describe latest --secret "$SECRET"; then
  echo "secret $SECRET: has a version"
else
  add_version
fi

cat <<NEXT

next:
  terraform -chdir=terraform init -backend-config=bucket=$state
  terraform -chdir=terraform apply -var project_id=$project -var region=$region
NEXT
