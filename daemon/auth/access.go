package auth

import (
	"iter"
	"slices"
)

// Kind is what a caller is. A job is Nobody.
type Kind int

const (
	// Nobody may nothing.
	Nobody Kind = iota
	// User is a local user whom a task names: it may start that task, and see and stop the jobs it owns.
	User
	// Operator starts, stops and sees all tasks and jobs, and runs commands as itself.
	Operator
	// Admin may everything on the control socket.
	Admin
	// Gateway is the gateway on its own socket, and may nothing else.
	Gateway
	// KeyHolder is a client on the network with a good API key, for whom the gateway speaks.
	KeyHolder
	// Sender is the sender of a request to a webhook. It is known by its message, so it calls nothing itself: the gateway does.
	Sender
	// Remote is a client on another machine with a good certificate and a good token, whose calls the gateway passes on.
	Remote
)

// String returns the kind in one lower-case word.
func (k Kind) String() string {
	switch k {
	case User:
		return "user"
	case Operator:
		return "operator"
	case Admin:
		return "admin"
	case Gateway:
		return "gateway"
	case KeyHolder:
		return "key"
	case Sender:
		return "webhook"
	case Remote:
		return "remote"
	default:
		return "nobody"
	}
}

// Kinds returns every kind of caller.
func Kinds() []Kind { return []Kind{Nobody, User, Operator, Admin, Gateway, KeyHolder, Sender, Remote} }

// Grant is how a role gives remote clients a method.
type Grant int

const (
	// Never is a method that no role can give: it makes credentials, which would outlive the client's own, shows secrets, or is not
	// for clients.
	Never Grant = iota
	// Named is one that only a role gives which lists it by its name.
	Named
	// Run is one that a role gives also by listing "run", and Read one by listing "read" or "run".
	Run
	Read
	// Always is one that every remote client has, also without a role: it tells nothing but who that is, and what the API is.
	Always
)

// Rule is what a method asks of its caller. The zero Rule lets nobody in.
type Rule struct {
	// Least is the kind that is enough: User, Operator and Admin each include the ones before. Gateway and KeyHolder include
	// nobody else, an Admin neither.
	Least Kind
	// Objects says that the method is about tasks or jobs, and that a caller for whom AllObjects does not hold may use
	// it only on its own: the tasks that name it and the jobs it owns.
	Objects bool
	// Task says that a KeyHolder's call is about the task that it names, and that its key must be one of those of the task.
	Task bool
	// Remote is how a role gives it to remote clients.
	Remote Grant
}

// Allows reports whether a kind of caller may call. A Remote is allowed by its roles, see AllowsRemote.
func (r Rule) Allows(k Kind) bool {
	switch r.Least {
	case User, Operator, Admin:
		return r.Least <= k && k <= Admin
	case Gateway, KeyHolder:
		return k == r.Least
	default:
		return false
	}
}

// AllowsRemote reports whether a remote client may call whose role lists methods. The method of the rule has the name.
func (r Rule) AllowsRemote(name string, methods []string) bool {
	lists := func(word string) bool { return slices.Contains(methods, word) }
	switch r.Remote {
	case Always:
		return true
	case Read:
		return lists("read") || lists("run") || lists(name)
	case Run:
		return lists("run") || lists(name)
	case Named:
		return lists(name)
	default:
		return false
	}
}

// table has a row for every method of the API, and of the services that tell of it. What is not in it is refused. It is never written to.
var table = [...]struct {
	procedure string
	rule      Rule
}{
	{"/rtask.v1.JobService/Start", Rule{Least: User, Objects: true, Remote: Run}},
	{"/rtask.v1.JobService/Stop", Rule{Least: User, Objects: true, Remote: Run}},
	{"/rtask.v1.JobService/Status", Rule{Least: User, Objects: true, Remote: Read}},
	{"/rtask.v1.JobService/StreamLogs", Rule{Least: User, Objects: true, Remote: Read}},
	{"/rtask.v1.JobService/List", Rule{Least: User, Objects: true, Remote: Read}},
	{"/rtask.v1.JobService/Wait", Rule{Least: User, Objects: true, Remote: Read}},
	{"/rtask.v1.JobService/Tasks", Rule{Least: User, Objects: true, Remote: Read}},
	{"/rtask.v1.JobService/ShowTask", Rule{Least: User, Objects: true, Remote: Read}},
	{"/rtask.v1.JobService/SwitchTask", Rule{Least: Admin, Remote: Named}},
	{"/rtask.v1.JobService/Drain", Rule{Least: Admin, Remote: Named}},
	{"/rtask.v1.JobService/Info", Rule{Least: User, Remote: Read}},
	{"/rtask.v1.JobService/WhoAmI", Rule{Least: User, Remote: Always}},
	{"/rtask.v1.JobService/AddKey", Rule{Least: Admin}},
	{"/rtask.v1.JobService/ListKeys", Rule{Least: Admin, Remote: Named}},
	{"/rtask.v1.JobService/RevokeKey", Rule{Least: Admin, Remote: Named}},
	{"/rtask.v1.JobService/RotateKey", Rule{Least: Admin}},
	{"/rtask.v1.JobService/ImportKeys", Rule{Least: Admin}},
	{"/rtask.v1.JobService/ListWebhooks", Rule{Least: Admin}},
	{"/rtask.v1.JobService/TestWebhook", Rule{Least: Admin}},
	{"/rtask.v1.JobService/ListDeliveries", Rule{Least: User, Objects: true, Remote: Named}},
	{"/rtask.v1.JobService/ReplayDelivery", Rule{Least: User, Objects: true, Remote: Named}},
	{"/rtask.v1.JobService/Reload", Rule{Least: Admin, Remote: Named}},
	{"/rtask.v1.JobService/DryRun", Rule{Least: Admin}},
	{"/rtask.v1.AuthorityService/Show", Rule{Least: Admin}},
	{"/rtask.v1.AuthorityService/Init", Rule{Least: Admin}},
	{"/rtask.v1.AuthorityService/Issue", Rule{Least: Admin}},
	{"/rtask.v1.AuthorityService/Sign", Rule{Least: Admin}},
	{"/rtask.v1.AuthorityService/Renew", Rule{Least: Admin}},
	{"/rtask.v1.AuthorityService/List", Rule{Least: Admin}},
	{"/rtask.v1.AuthorityService/Revoke", Rule{Least: Admin}},
	{"/rtask.v1.AuthorityService/Rotate", Rule{Least: Admin}},
	{"/rtask.v1.AuthorityService/Export", Rule{Least: Admin}},
	{"/rtask.v1.AuthorityService/Devices", Rule{Least: Admin}},
	{"/rtask.v1.AuthorityService/ApproveDevice", Rule{Least: Admin}},
	{"/rtask.v1.AuthorityService/DenyDevice", Rule{Least: Admin}},
	{"/rtask.v1.AuthorityService/Providers", Rule{Least: Admin}},
	{"/rtask.v1.GatewayService/Run", Rule{Least: KeyHolder, Objects: true, Task: true}},
	{"/rtask.v1.GatewayService/RunFraming", Rule{Least: KeyHolder, Objects: true, Task: true}},
	{"/rtask.v1.GatewayService/Result", Rule{Least: KeyHolder, Objects: true, Task: true}},
	{"/rtask.v1.GatewayService/RunStream", Rule{Least: KeyHolder, Objects: true, Task: true}},
	{"/rtask.v1.GatewayService/Logs", Rule{Least: KeyHolder, Objects: true, Task: true}},
	{"/rtask.v1.GatewayService/End", Rule{Least: KeyHolder, Objects: true, Task: true}},
	{"/rtask.v1.GatewayService/KeyTasks", Rule{Least: KeyHolder, Objects: true}},
	{"/rtask.v1.GatewayService/KeyJobs", Rule{Least: KeyHolder, Objects: true, Task: true}},
	{"/rtask.v1.GatewayService/Disconnected", Rule{Least: Gateway}},
	{"/rtask.v1.GatewayService/WebhookFraming", Rule{Least: Gateway}},
	{"/rtask.v1.GatewayService/Webhook", Rule{Least: Gateway}},
	{"/rtask.v1.GatewayService/WebhookStream", Rule{Least: Gateway}},
	{"/rtask.v1.GatewayService/Refused", Rule{Least: Gateway}},
	{"/rtask.v1.GatewayService/Watch", Rule{Least: Gateway}},
	{"/rtask.v1.GatewayService/Metrics", Rule{Least: Gateway}},
	{"/rtask.v1.GatewayService/Enroll", Rule{Least: Gateway}},
	{"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Rule{Remote: Always}},
	{"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Rule{Remote: Always}},
	{"/grpc.health.v1.Health/Check", Rule{Remote: Always}},
	{"/grpc.health.v1.Health/List", Rule{Remote: Always}},
	{"/grpc.health.v1.Health/Watch", Rule{Remote: Always}},
}

// Procedures yields every row of the table: a method's full name, "/rtask.v1.JobService/Start", and its rule.
func Procedures() iter.Seq2[string, Rule] {
	return func(yield func(string, Rule) bool) {
		for _, row := range table {
			if !yield(row.procedure, row.rule) {
				return
			}
		}
	}
}

// RuleOf returns a method's rule. A method that is not in the table has the zero Rule.
func RuleOf(procedure string) Rule {
	for _, row := range table {
		if row.procedure == procedure {
			return row.rule
		}
	}
	return Rule{}
}
