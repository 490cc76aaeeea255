task "scheduled-daily" {
  command = ["sh", "-c", "echo >>/opt/scheduled/daily"]
  user    = "root"
  schedule {
    on_calendar = ["daily"]
    persistent  = true
  }
  sandbox {
    profile = "off"
  }
}
task "scheduled-forgetful" {
  command = ["sh", "-c", "echo >>/opt/scheduled/forgetful"]
  user    = "root"
  schedule {
    on_calendar = ["daily"]
  }
  sandbox {
    profile = "off"
  }
}
task "scheduled-off" {
  command = ["sh", "-c", "echo >>/opt/scheduled/off"]
  user    = "root"
  schedule {
    on_calendar = ["daily"]
    persistent  = true
  }
  sandbox {
    profile = "off"
  }
}
