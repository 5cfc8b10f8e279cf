# The rules that tflint brings itself; its rules on Google's resources are a plugin of their own, which is fetched from elsewhere.
plugin "terraform" {
  enabled = true
  preset  = "all"
}

# files are named for what a reader looks for: providers.tf, not main.tf and versions.tf
rule "terraform_standard_module_structure" {
  enabled = false
}
