# The smallest useful task: it greets whom its standard input names.
#
#   curl -H "Authorization: Bearer KEY" -d Ada http://127.0.0.1:8800/tasks/hello
#   echo Ada | rtaskctl run --input - hello

task "hello" {
  # An argument vector, not a line for a shell; a shell that is wanted is named. The body of a request is the standard
  # input and never becomes an argument. Since HCL has a meaning of its own for ${, the shell's is written $${.
  command = ["/bin/sh", "-c", "read -r name; echo \"Hello, $${name:-world}!\""]

  # The reply waits for the end and carries the output. Without, it is an id to ask with.
  blocking = true

  # Who may start it over HTTP: holders of the key that `rtaskctl key add demo` printed.
  api_keys = ["demo"]
}
