package auth

import (
	"cmp"
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"time"
)

// Caller is who calls, and what it counts as.
type Caller struct {
	Kind Kind
	// Peer is the process that connected: that of a local caller, or the gateway's.
	Peer Peer
	// UserName is the name of the peer's user, empty where it has none.
	UserName string
	// Key is of a KeyHolder, and Webhook of a Sender.
	Key     KeyInfo
	Webhook string
	// Client is of a Remote.
	Client Client
	// Remote is the address of the client that the gateway speaks for, as it says; see codec.Presented. Nothing is allowed by it.
	Remote string
}

// Client is a client on another machine, as its certificate and its token say.
type Client struct {
	// Subject is whose its jobs are: what the token says, which is the URI of the certificate, or where that has none the distinguished
	// name, or a user of a provider as PROVIDER:SUBJECT.
	Subject string
	// URI and DN are what the certificate says, as far as it does; roles are given by these.
	URI, DN string
	// Serial is the certificate's, as 3f:a1:…, and Until when that ends, or the first one on its way to its authority.
	Serial string
	Until  time.Time
	// Provider is the one that vouched for the client; "": none. ProviderSubject is what it calls the client.
	Provider, ProviderSubject string
	// Groups are what roles name: the provider, and each group of it as PROVIDER:GROUP. Given are names of roles that an administrator
	// gave the client when it enrolled.
	Groups, Given []string
	// Machine says that the certificate is a machine's.
	Machine bool
	// TokenID tells the token from others, and TokenFrom and TokenUntil are its time.
	TokenID               string
	TokenFrom, TokenUntil time.Time
	// TokenRoles are names of the only roles that the token may use; AnyRole: there is no such list.
	TokenRoles []string
	AnyRole    bool
}

// Identity is what the certificate says, whatever the token does: its URI, or its distinguished name.
func (c Client) Identity() string { return cmp.Or(c.URI, c.DN) }

// Name is what records and people call the caller: "key:NAME", "webhook:NAME", the subject of a remote client, or its user's name, or the number where it has none.
// Two users can share a Name, if one's name is the other's number; decide by Peer.UID.
func (c Caller) Name() string {
	switch {
	case c.Kind == KeyHolder:
		return "key:" + c.Key.Name
	case c.Kind == Sender:
		return "webhook:" + c.Webhook
	case c.Kind == Remote:
		return c.Client.Subject
	case c.UserName != "":
		return c.UserName
	}
	return strconv.FormatUint(uint64(c.Peer.UID), 10)
}

// AllObjects reports whether the caller may use all tasks and jobs, and run commands as itself. Where it is false, a
// User may start the tasks that name it, and see and stop the jobs of its own uid.
func (c Caller) AllObjects() bool { return c.Kind == Operator || c.Kind == Admin }

// Options say who is who on this machine.
type Options struct {
	// AdminGroup and OperatorGroup are the groups' names, "rtask-admin" and "rtask". Empty, or no group of that name:
	// nobody is in it. An engine of an ordinary user leaves them empty, since its callers act with that user's rights.
	AdminGroup, OperatorGroup string
	// GatewayUser is the name of the gateway's user, "rtask-gateway". Empty, or no user of that name: only root and
	// OwnUID may call as the gateway.
	GatewayUser string
	// GatewayUID is the number of the gateway's user where that is known, whatever GatewayUser is. nil: it is not.
	GatewayUID *uint32
	// OwnUID is the user that the engine runs as: an Admin, as root is.
	OwnUID uint32
	// Named reports whether any task of the configuration names a user, by its uid or name or one of its groups, the
	// primary one among them. The name is empty where the user has none. It is called for each call of Control that
	// depends on it, from many goroutines, so that it answers for the configuration of that moment. nil: no task does.
	Named func(uid uint32, userName string, groups []uint32) bool
	// Accounts is the user database. nil: the system's.
	Accounts *Accounts
}

// Accounts is a user database.
type Accounts struct {
	// GroupID and UserID return a number, and false if there is no such name.
	GroupID, UserID func(name string) (uint32, bool, error)
	// UserName returns a name, empty if the user has none.
	UserName func(uid uint32) string
}

// SystemAccounts returns the machine's user database, as os/user reads it.
func SystemAccounts() *Accounts {
	return &Accounts{
		GroupID: func(name string) (uint32, bool, error) {
			g, err := user.LookupGroup(name)
			if _, ok := errors.AsType[user.UnknownGroupError](err); ok {
				return 0, false, nil
			}
			if err != nil {
				return 0, false, err
			}
			return number(g.Gid)
		},
		UserID: func(name string) (uint32, bool, error) {
			u, err := user.Lookup(name)
			if _, ok := errors.AsType[user.UnknownUserError](err); ok {
				return 0, false, nil
			}
			if err != nil {
				return 0, false, err
			}
			return number(u.Uid)
		},
		UserName: func(uid uint32) string {
			u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
			if err != nil {
				return ""
			}
			return u.Username
		},
	}
}

func number(s string) (uint32, bool, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil, err
}

// Identify tells kinds of caller apart. It never changes; many goroutines may use it.
type Identify struct {
	ownUID                uint32
	admin, operator, gate id
	named                 func(uint32, string, []uint32) bool
	userName              func(uint32) string
}

// id is a user's or a group's number, where there is one.
type id struct {
	number uint32
	known  bool
}

// NewIdentify looks the groups and the gateway's user up, once: later decisions compare numbers, which the kernel
// vouches for, and never read /etc/group. It fails if the user database cannot be read; names that are not in it are
// no error.
func NewIdentify(opts Options) (*Identify, error) {
	accounts := opts.Accounts
	if accounts == nil {
		accounts = SystemAccounts()
	}
	i := &Identify{ownUID: opts.OwnUID, named: opts.Named, userName: accounts.UserName}
	for _, l := range []struct {
		name   string
		lookup func(string) (uint32, bool, error)
		to     *id
	}{
		{opts.AdminGroup, accounts.GroupID, &i.admin},
		{opts.OperatorGroup, accounts.GroupID, &i.operator},
		{opts.GatewayUser, accounts.UserID, &i.gate},
	} {
		if l.name == "" {
			continue
		}
		n, ok, err := l.lookup(l.name)
		if err != nil {
			return nil, fmt.Errorf("cannot look up %q: %w", l.name, err)
		}
		*l.to = id{n, ok}
	}
	if opts.GatewayUID != nil {
		i.gate = id{*opts.GatewayUID, true}
	}
	return i, nil
}

// Control returns what a peer of the control socket is. A process below rtask.slice, or one of which that is not
// known, is Nobody even as root: a job must not start jobs. The gateway's user is Nobody here too, whatever its groups
// are and whatever a task names: it has a socket of its own.
func (i *Identify) Control(p Peer) Caller {
	c := Caller{Peer: p, UserName: i.userName(p.UID)}
	switch {
	case p.InSlice || !p.CgroupKnown:
		c.Kind = Nobody
	case i.Owns(p):
		c.Kind = Admin
	case i.isGateway(p):
		c.Kind = Nobody
	case i.admin.known && p.In(i.admin.number):
		c.Kind = Admin
	case i.operator.known && p.In(i.operator.number):
		c.Kind = Operator
	case i.named != nil && i.named(p.UID, c.UserName, append([]uint32{p.GID}, p.Groups...)):
		c.Kind = User
	}
	return c
}

// Gateway returns what a peer of the gateway's socket is. It returns ErrForbidden for all but the gateway's user, root
// and the engine's own user, and for a process that Control would refuse for its control group.
func (i *Identify) Gateway(p Peer) (Caller, error) {
	if p.InSlice || !p.CgroupKnown || !i.Owns(p) && !i.isGateway(p) {
		return Caller{Peer: p}, ErrForbidden
	}
	// Its name says nothing, and to look it up for each request costs as much as to check a key.
	return Caller{Kind: Gateway, Peer: p}, nil
}

// Owns reports whether a peer is root or the engine's own user, from whom the engine keeps nothing.
func (i *Identify) Owns(p Peer) bool { return p.UID == 0 || p.UID == i.ownUID }

func (i *Identify) isGateway(p Peer) bool { return i.gate.known && p.UID == i.gate.number }
