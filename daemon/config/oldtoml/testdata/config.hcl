task "build" {
  command = ["make", "build"]
  workdir = "/path/to/project"
  api_keys = ["github-action"]
  blocking = false
  rate_limit = 0.5
  max_concurrent = 2
  timeout = "300s"
}

task "hello" {
  command = ["/etc/old/test.nu"]
  api_keys = ["a1", "a3"]
  blocking = true
  rate_limit = 1
}

task "webhook-handler" {
  command = ["/usr/local/bin/process-webhook.sh"]
  blocking = false
  max_concurrent = 0
  overflow = "reject"
  pass_request_headers = ["X-GitHub-Event", "X-Hub-Signature"]
  environment = {
    "LOG_LEVEL" = "info"
    "WEBHOOK_TIMEOUT" = "30"
  }
  webhook "github" {
    token = "your-webhook-secret-hash"
    max_input_bytes = "16K"
  }
  webhook "gitlab" {
    token_file = "/etc/rtask/gitlab-webhook-secret"
    max_input_bytes = "16K"
  }
}
