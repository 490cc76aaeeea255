// Package auth decides who is calling and what they may do: peers of the Unix sockets, as the kernel names them, one
// table of the methods and the kind of caller that each needs, and API keys.
//
// It is not for what a caller may do to one task or one job: that needs the configuration and the job's record, and is
// decided where those are. It starts no job, serves no request and writes no log. It imports nothing of the project
// but daemon/auth/cost; the packages of the engine may import it, the gateway may not.
package auth
