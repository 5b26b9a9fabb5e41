output "deployment_groups" {
  description = "The deployment groups and their ids"
  value       = { for name, group in aws_codedeploy_deployment_group.group : name => group.deployment_group_id }
}
