# rtask's configuration but for the tasks, which are in tasks.d beside this file, one block each:
#
#   task "NAME" {
#     command = ["/usr/bin/program", "argument"]
#   }
#
# rtask.hcl(5) describes all there is. What stands here behind a # is the default. After a change:
#
#   rtaskctl config check        says what is wrong, and where
#   systemctl reload rtask       takes it up; with an error in it, nothing changes

# How many jobs may run at a time, of all tasks and commands together.
#max_jobs = 1000

# A task whose limits this machine cannot enforce: "refuse" it, or "warn" and run it without.
#limits_unavailable = "refuse"

# A task that names no user runs under a uid of this range that no other job has. No account may have one of them.
#dynamic_uids = "70000-70999"

# What is kept of jobs that have ended, records and logs together. What exceeds one of the bounds goes, the oldest first.
#retention {
#  keep_for   = "30d"
#  keep_bytes = "2G"
#  keep_jobs  = 100000
#}

# The cost of new hashes of API keys (Argon2id).
#argon2 {
#  memory  = "19M"
#  time    = 2
#  threads = 1
#}

# What holds for tasks that do not say otherwise: most attributes of a task, and limits. None by default; for example:
#defaults {
#  timeout = "5min"
#  limits {
#    memory_max = "512M"
#  }
#}
