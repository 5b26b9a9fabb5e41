# An application, its deployment groups and a deployment configuration, on a controller of your own.
# The provider is AWS's, unmodified: only its endpoint differs. Without `endpoints`, the same file is for AWS.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

# The keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: `codedeploy-controller credentials create --role operator`.
provider "aws" {
  region                      = var.region
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true

  endpoints {
    codedeploy = var.endpoint
    sts        = var.endpoint
  }
}

resource "aws_codedeploy_app" "shop" {
  name             = "shop"
  compute_platform = "Server"
}

# At most a quarter of the hosts is out of service at a time.
resource "aws_codedeploy_deployment_config" "quarter" {
  deployment_config_name = "shop.QuarterAtATime"
  compute_platform       = "Server"

  minimum_healthy_hosts {
    type  = "FLEET_PERCENT"
    value = 75
  }
}

resource "aws_codedeploy_deployment_group" "group" {
  for_each = var.groups

  app_name               = aws_codedeploy_app.shop.name
  deployment_group_name  = each.key
  deployment_config_name = each.value.careful ? aws_codedeploy_deployment_config.quarter.id : "CodeDeployDefault.AllAtOnce"
  # The controller stores the role and does not use it.
  service_role_arn = "arn:aws:iam::${var.account_id}:role/codedeploy"

  on_premises_instance_tag_filter {
    key   = "env"
    type  = "KEY_AND_VALUE"
    value = each.value.env
  }

  auto_rollback_configuration {
    enabled = each.value.careful
    events  = ["DEPLOYMENT_FAILURE"]
  }
}
