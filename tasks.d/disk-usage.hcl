# How full the disks are, and what fills /var.
#
#   rtaskctl run disk-usage

task "disk-usage" {
  # A text between <<-EOT and EOT is one argument of several lines. It needs no $$ here: only ${ is special, $( is not.
  command = ["/bin/sh", "-c", <<-EOT
    echo "Space:"
    df --human-readable --print-type --exclude-type=tmpfs --exclude-type=devtmpfs
    echo
    echo "Inodes:"
    df --inodes --exclude-type=tmpfs --exclude-type=devtmpfs
    echo
    echo "Largest folders of /var (what this user may not read is left out):"
    du --human-readable --one-file-system --max-depth=2 /var 2>/dev/null | sort --human-numeric-sort --reverse | head -n 15
    EOT
  ]

  blocking = true
  api_keys = ["demo"]

  # A cold disk takes its time. The default is 30s.
  timeout = "2min"

  # How much of the output the reply carries; the job's log has a cap of its own, log_max_bytes.
  max_output_bytes = "64K"

  # One language of messages and numbers, whatever the machine's is.
  environment = { LC_ALL = "C.UTF-8" }
}
