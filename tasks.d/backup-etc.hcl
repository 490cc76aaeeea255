# A dated archive of /etc in /var/backups/etc, of which the last seven are kept. It runs in the background:
#
#   rtaskctl start backup-etc             prints the job's id
#   rtaskctl logs -f JOB                  shows what it writes
#   systemctl status rtask.slice          shows it and what it uses
#
# No key, user or group is named, so root and the operators (group rtask) alone may start it.

task "backup-etc" {
  # The archive is written under another name first, so that one that was cut short is never taken for a whole one.
  # -e ends the script at the first command that fails, -u at a variable that was never set.
  command = ["/bin/sh", "-euc", <<-EOT
    umask 077
    mkdir -p "$DEST"
    file="$DEST/etc-$(date +%Y%m%dT%H%M%S).tar.gz"
    tar --create --gzip --one-file-system --directory=/ --file="$DEST/unfinished.tar.gz" etc
    mv "$DEST/unfinished.tar.gz" "$file"
    ls -1t "$DEST"/etc-*.tar.gz | tail -n "+$((KEEP + 1))" | xargs --no-run-if-empty rm --
    echo "wrote $file ($(du --human-readable "$file" | cut -f1))"
    EOT
  ]

  # One at a time; a second one waits for its turn.
  max_concurrent = 1
  overflow       = "queue"

  environment = {
    DEST = "/var/backups/etc"
    KEEP = "7"
  }

  # Parts of /etc are for root alone. A task never runs as root unless it says so.
  user = "root"

  # After timeout it is asked to end with SIGTERM, and killed timeout_stop_sec later.
  timeout          = "15min"
  timeout_stop_sec = "30s"

  # The names and values of systemd.resource-control(5). They hold for all of the job's processes together. A machine that
  # cannot enforce them refuses the task, unless rtask.hcl says limits_unavailable = "warn".
  limits {
    memory_max = "256M"
    cpu_quota  = "50%" # of one processor
    tasks_max  = 32
  }
}
