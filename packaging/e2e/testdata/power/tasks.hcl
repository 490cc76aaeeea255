# power-free runs as often as asked for, power-one once at a time, power-blocking while its caller waits, power-hook for a webhook that
# keeps what was delivered.
task "power-free" {
  command         = ["/opt/power/job"]
  api_keys        = ["power"]
  timeout         = "5min"
  retention       = "1h"
  max_input_bytes = "1M"
  redirect_stderr = false
}
task "power-one" {
  command         = ["/opt/power/job"]
  api_keys        = ["power"]
  timeout         = "5min"
  retention       = "1h"
  max_input_bytes = "1M"
  redirect_stderr = false
  max_concurrent  = 1
  overflow        = "queue"
  queue           = 1000
}
task "power-blocking" {
  command         = ["/opt/power/job"]
  api_keys        = ["power"]
  blocking        = true
  timeout         = "5min"
  redirect_stderr = false
}
task "power-hook" {
  command         = ["/opt/power/job"]
  timeout         = "5min"
  max_concurrent  = 0
  redirect_stderr = false
  webhook "kept" {
    token           = "token-of-the-power-cuts"
    keep_deliveries = 1000
  }
}
