variable "endpoint" {
  description = "URL of the controller"
  type        = string
  default     = "https://deploy.example.com:7080"
}

variable "region" {
  description = "Region of the controller (`region` in its settings)"
  type        = string
  default     = "us-east-1"
}

variable "account_id" {
  description = "Account of the controller (`account_id` in its settings)"
  type        = string
  default     = "123456789012"
}

variable "groups" {
  description = "Deployment groups: the value of the tag `env` of their hosts, and whether they are updated part by part"
  type        = map(object({ env = string, careful = bool }))
  default = {
    staging    = { env = "staging", careful = false }
    production = { env = "prod", careful = true }
  }
}
