package control

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
)

// rolesOf returns the roles that the configuration gives a client, whatever its token says.
func rolesOf(cfg *config.Config, c auth.Client) []*config.Role {
	if cfg == nil {
		return nil
	}
	all := cfg.RolesOf(c.URI, c.DN, c.Groups)
	for _, r := range cfg.Roles {
		if slices.Contains(c.Given, r.Name) && !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	return all
}

// roleNames are the names of roles, for people.
func roleNames(all []*config.Role) string {
	var names []string
	for _, r := range all {
		names = append(names, r.Name)
	}
	return strings.Join(names, ", ")
}

// allowing returns those of roles that allow a client a method.
func allowing(all []*config.Role, rule auth.Rule, name string) []*config.Role {
	return slices.DeleteFunc(slices.Clone(all), func(r *config.Role) bool { return !rule.AllowsRemote(name, r.Methods) })
}

// forRole finds the roles of a client that allow it the method of a rule, in c.snapshot, or returns why there is none.
func (s *Server) forRole(c *call, rule auth.Rule) error {
	cfg, name := c.snapshot.Config, path.Base(c.procedure)
	given := rolesOf(cfg, c.Client)
	c.held = slices.DeleteFunc(slices.Clone(given), func(r *config.Role) bool {
		return !c.Client.AnyRole && !slices.Contains(c.Client.TokenRoles, r.Name)
	})
	c.roles = allowing(c.held, rule, name)
	switch {
	case rule.Remote == auth.Always || len(c.roles) > 0:
		return nil
	case cfg == nil:
		return noTasks()
	case len(allowing(given, rule, name)) > 0 && c.Client.TokenFrom.Add(time.Second).Before(c.snapshot.ReadAt):
		// The token, whose time is in whole seconds, is older than what gives the role: the next one has it.
		return fail(connect.CodeUnauthenticated, rtaskv1.KindTokenExpired, errors.New("the token is older than the role that allows this"))
	case len(c.held) == 0:
		return fail(connect.CodePermissionDenied, rtaskv1.KindRole, fmt.Errorf("you have no role, so you may not use %s", name))
	default:
		return fail(connect.CodePermissionDenied, rtaskv1.KindRole, fmt.Errorf("your roles (%s) do not allow %s", roleNames(c.held), name))
	}
}

// shows reports whether a role shows a client a job: of one of the role's tasks, and where it shows commands, of those that remote
// clients run as the role's user. Unless it shows all, the job must be the client's own.
func shows(r *config.Role, subject string, j job.Job) bool {
	own := subject != "" && j.Owner.Subject == subject
	all := r.Jobs == config.JobsAll
	if j.Task != "" {
		return r.Has(j.Task) && (own || all)
	}
	return r.Commands && (own || all && j.Owner.Subject != "" && j.User == r.RunAs)
}

// remoteSpec is what a remote client's request starts, or why it does not.
func (s *Server) remoteSpec(c *call, r *rtaskv1.StartRequest) (job.Spec, error) {
	cfg := c.snapshot.Config
	if cfg == nil { // or there would be no role that allows it
		return job.Spec{}, noTasks()
	}
	with := slices.IndexFunc(c.roles, func(r *config.Role) bool { return r.Commands })
	task := cfg.Tasks[r.Name]
	switch {
	case task != nil && !r.Command && c.may(task):
		return s.taskRequest(c, task, r)
	case r.Command && with < 0:
		return job.Spec{}, fail(connect.CodePermissionDenied, rtaskv1.KindRole, fmt.Errorf("your roles (%s) do not allow commands", roleNames(c.held)))
	case with < 0 || task != nil && !r.Command: // a task's name never falls through to a command
		return job.Spec{}, fail(connect.CodeNotFound, rtaskv1.KindNotFound, fmt.Errorf("there is no task %q", r.Name))
	}
	user, err := s.runAs(c.roles[with])
	if err != nil {
		return job.Spec{}, err
	}
	// Of a path and a folder of another machine nothing is true here.
	here := &rtaskv1.StartRequest{
		Name: r.Name, Arguments: r.Arguments, Command: r.Command, Path: r.Name, WorkingDirectory: cmp.Or(user.Home, "/"), Environment: r.Environment,
		Input: r.Input, AllowDuplicate: r.AllowDuplicate, Properties: r.Properties, Parameters: r.Parameters,
	}
	if !strings.Contains(r.Name, "/") {
		found, ok := job.LookPath(r.Name)
		if !ok {
			return job.Spec{}, fail(connect.CodeNotFound, rtaskv1.KindNotFound, fmt.Errorf("there is no task %q, and no command of that name in the PATH of %s", r.Name, user.Name))
		}
		here.Path = found
	}
	return s.commandSpec(c, user, here)
}

// remoteInfo is what a remote client is told of the engine: nothing of tasks and jobs that its roles do not show.
func (s *Server) remoteInfo(c *call) (*rtaskv1.InfoResponse, error) {
	i := s.Options.Info
	m := &rtaskv1.InfoResponse{
		Version: i.Version, Manager: i.Manager, StartedAt: timestamp(i.Started), Draining: s.Jobs.Draining(), ConfigurationReadAt: timestamp(c.snapshot.ReadAt),
	}
	live, err := s.Jobs.List(job.Filter{Visible: c.sees})
	if err != nil {
		return nil, waitError(err)
	}
	for _, j := range live {
		if j.State == job.Queued {
			m.Queued++
		} else {
			m.Running++
		}
	}
	for _, is := range switchMessages(c.snapshot) {
		if slices.ContainsFunc(c.roles, func(r *config.Role) bool { return r.Has(is.Task) }) {
			m.Switches = append(m.Switches, is)
		}
	}
	return m, nil
}

// triggerRemote is job.Spec.Trigger of what remote clients start.
const triggerRemote = "remote"

// runAs returns the user that a role's commands run as, which is not root, whatever its name is, and not the gateway.
func (s *Server) runAs(r *config.Role) (*job.User, error) {
	refuse := func(err error) (*job.User, error) {
		return nil, fail(connect.CodePermissionDenied, rtaskv1.KindRole, fmt.Errorf("role %s allows no commands now: %w", r.Name, err))
	}
	if r.RunAs == "" {
		return refuse(errors.New("it has no run_as"))
	}
	u, err := job.LookupUser(r.RunAs)
	switch {
	case err != nil:
		return refuse(fmt.Errorf("there is no user %s here", r.RunAs))
	case u.UID == 0:
		return refuse(errors.New("its run_as is root"))
	case s.GatewayUID != nil && u.UID == *s.GatewayUID && os.Geteuid() == 0:
		return refuse(errors.New("its run_as is the gateway's user"))
	}
	return u, nil
}
