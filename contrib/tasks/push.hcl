# What a push to GitHub starts. Here it only says what was pushed.
#
#   openssl rand -hex 32 >/etc/rtask/github.secret; chmod 600 /etc/rtask/github.secret
#   rtaskctl reload
#   rtaskctl webhook list            the URL for GitHub: Settings, Webhooks, with that secret
#   rtaskctl webhook test push/github

task "push" {
  # Nothing of a request is in the command: the body is standard input, and the rest is in the environment.
  command = ["/bin/sh", "-c", "echo \"$RTASK_EVENT of $RTASK_GIT_SHA to $RTASK_GIT_REF, delivery $RTASK_DELIVERY\""]

  webhook "github" {
    verify = "github"

    # Until it is there, requests get 503. While the secret is changed, the old one and the new one may stand here.
    secret_files = ["/etc/rtask/github.secret"]

    # Everything else is answered with {"status":"ignored"}.
    events = ["push"]
    refs   = ["refs/heads/main", "refs/tags/v*"]
  }
}
