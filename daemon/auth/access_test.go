package auth

import (
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every row against every kind of caller, written out: whoever changes the table has to change this too.
func TestEveryProcedureForEveryKind(t *testing.T) {
	grants := map[string]Grant{
		"/rtask.v1.JobService/Start": Run, "/rtask.v1.JobService/Stop": Run,
		"/rtask.v1.JobService/Status": Read, "/rtask.v1.JobService/StreamLogs": Read, "/rtask.v1.JobService/List": Read, "/rtask.v1.JobService/Wait": Read,
		"/rtask.v1.JobService/Tasks": Read, "/rtask.v1.JobService/ShowTask": Read, "/rtask.v1.JobService/Info": Read,
		"/rtask.v1.JobService/SwitchTask": Named, "/rtask.v1.JobService/Drain": Named, "/rtask.v1.JobService/Reload": Named,
		"/rtask.v1.JobService/ListKeys": Named, "/rtask.v1.JobService/RevokeKey": Named,
		"/rtask.v1.JobService/ListDeliveries": Named, "/rtask.v1.JobService/ReplayDelivery": Named,
		"/rtask.v1.JobService/WhoAmI": Always, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": Always,
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Always,
		"/grpc.health.v1.Health/Check":                                   Always, "/grpc.health.v1.Health/List": Always, "/grpc.health.v1.Health/Watch": Always,
	}
	local := []Kind{User, Operator, Admin}
	want := map[string][]Kind{
		"/rtask.v1.JobService/Start":              local,
		"/rtask.v1.JobService/Stop":               local,
		"/rtask.v1.JobService/Status":             local,
		"/rtask.v1.JobService/StreamLogs":         local,
		"/rtask.v1.JobService/List":               local,
		"/rtask.v1.JobService/Wait":               local,
		"/rtask.v1.JobService/Tasks":              local,
		"/rtask.v1.JobService/Info":               local,
		"/rtask.v1.JobService/WhoAmI":             local,
		"/rtask.v1.JobService/ShowTask":           local,
		"/rtask.v1.JobService/SwitchTask":         {Admin},
		"/rtask.v1.JobService/Drain":              {Admin},
		"/rtask.v1.JobService/AddKey":             {Admin},
		"/rtask.v1.JobService/ListKeys":           {Admin},
		"/rtask.v1.JobService/RevokeKey":          {Admin},
		"/rtask.v1.JobService/RotateKey":          {Admin},
		"/rtask.v1.JobService/ImportKeys":         {Admin},
		"/rtask.v1.JobService/Reload":             {Admin},
		"/rtask.v1.JobService/DryRun":             {Admin},
		"/rtask.v1.JobService/ListWebhooks":       {Admin},
		"/rtask.v1.JobService/TestWebhook":        {Admin},
		"/rtask.v1.JobService/ListDeliveries":     local,
		"/rtask.v1.JobService/ReplayDelivery":     local,
		"/rtask.v1.GatewayService/Webhook":        {Gateway},
		"/rtask.v1.GatewayService/WebhookStream":  {Gateway},
		"/rtask.v1.GatewayService/Disconnected":   {Gateway},
		"/rtask.v1.GatewayService/Refused":        {Gateway},
		"/rtask.v1.GatewayService/WebhookFraming": {Gateway},
		"/rtask.v1.GatewayService/Run":            {KeyHolder},
		"/rtask.v1.GatewayService/RunFraming":     {KeyHolder},
		"/rtask.v1.GatewayService/Result":         {KeyHolder},
		"/rtask.v1.GatewayService/RunStream":      {KeyHolder},
		"/rtask.v1.GatewayService/Logs":           {KeyHolder},
		"/rtask.v1.GatewayService/End":            {KeyHolder},
		"/rtask.v1.GatewayService/KeyTasks":       {KeyHolder},
		"/rtask.v1.GatewayService/KeyJobs":        {KeyHolder},
		"/rtask.v1.GatewayService/Watch":          {Gateway},
		"/rtask.v1.GatewayService/Metrics":        {Gateway},
		"/rtask.v1.GatewayService/Enroll":         {Gateway},

		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {},
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {},
		"/grpc.health.v1.Health/Check":                                   {},
		"/grpc.health.v1.Health/List":                                    {},
		"/grpc.health.v1.Health/Watch":                                   {},
	}
	for method := range strings.FieldsSeq("Show Init Issue Sign Renew List Revoke Rotate Export Devices ApproveDevice DenyDevice Providers") {
		want["/rtask.v1.AuthorityService/"+method] = []Kind{Admin}
	}
	rows := 0
	for procedure, rule := range Procedures() {
		rows++
		kinds, ok := want[procedure]
		if !ok {
			t.Errorf("%s is in the table, and not in this test", procedure)
		}
		if rule != RuleOf(procedure) {
			t.Errorf("%s is in the table twice", procedure)
		}
		if rule.Remote != grants[procedure] {
			t.Errorf("%s has the grant %d", procedure, rule.Remote)
		}
		for _, k := range Kinds() {
			if got := RuleOf(procedure).Allows(k); got != slices.Contains(kinds, k) {
				t.Errorf("%s, %v: allowed %v", procedure, k, got)
			}
		}
		if rule.Remote != Never && strings.Contains(procedure, "GatewayService") {
			t.Errorf("%s is for remote clients", procedure)
		}
		if rule.Objects && !slices.Contains(kinds, User) && !slices.Contains(kinds, KeyHolder) {
			t.Errorf("%s holds users to their own objects, and lets none in", procedure)
		}
	}
	if rows != len(want) {
		t.Errorf("%d rows, want %d", rows, len(want))
	}
}

// The table has each method of the API and no other.
func TestTableHasWhatTheAPIHas(t *testing.T) {
	var proto []byte
	for _, name := range []string{"rtask.proto", "authority.proto"} {
		one, err := os.ReadFile("../api/rtask/v1/" + name)
		if err != nil {
			t.Fatal(err)
		}
		proto = append(proto, one...)
	}
	var methods []string
	service := ""
	for line := range strings.Lines(string(proto)) {
		if m := regexp.MustCompile(`^service (\w+) \{`).FindStringSubmatch(line); m != nil {
			service = m[1]
		}
		if m := regexp.MustCompile(`^\s*rpc (\w+)\(`).FindStringSubmatch(line); m != nil {
			methods = append(methods, "/rtask.v1."+service+"/"+m[1])
		}
	}
	if len(methods) == 0 {
		t.Fatal("no methods found")
	}
	var rows []string
	for procedure := range Procedures() {
		if strings.HasPrefix(procedure, "/rtask.v1.") {
			rows = append(rows, procedure)
		}
	}
	slices.Sort(methods)
	slices.Sort(rows)
	if !slices.Equal(methods, rows) {
		t.Errorf("the API has\n%q\nthe table\n%q", methods, rows)
	}
}

func TestUnknownIsRefused(t *testing.T) {
	for _, procedure := range []string{
		"", "/", "Start", "/rtask.v1.JobService/", "/rtask.v1.JobService/start", "rtask.v1.JobService/Start",
		"/rtask.v1.JobService/Start/", "/rtask.v1.JobService/Halt", "/rtask.v1.GatewayService/Start",
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
	} {
		for _, k := range Kinds() {
			if RuleOf(procedure).Allows(k) {
				t.Errorf("%q is allowed to %v", procedure, k)
			}
		}
	}
	for procedure := range Procedures() {
		for _, k := range []Kind{-1, 0, Sender, Remote, Remote + 1} {
			// A kind that is no kind is never the gateway; above Admin it must not be an admin either.
			if RuleOf(procedure).Allows(k) {
				t.Errorf("%s is allowed to kind %d", procedure, int(k))
			}
		}
	}
	for _, k := range Kinds() {
		if (Rule{}).Allows(k) {
			t.Errorf("the zero rule lets %v in", k)
		}
	}
}

// Which words and names of a role give a remote client a method.
func TestAllowsRemote(t *testing.T) {
	for procedure, rule := range Procedures() {
		name := procedure[strings.LastIndexByte(procedure, '/')+1:]
		for methods, least := range map[string]Grant{"": Always, "read": Read, "run": Run, name: Named, "Nothing read0 RUN " + name + "s": Always} {
			want := rule.Remote >= least
			if got := rule.AllowsRemote(name, strings.Fields(methods)); got != want {
				t.Errorf("%s by %q: %v", procedure, methods, got)
			}
		}
	}
	if (Rule{}).AllowsRemote("Start", []string{"run", "read", "Start"}) || (Rule{Remote: Always + 1}).AllowsRemote("Start", []string{"Start"}) {
		t.Error("what is in no table is given by a role")
	}
}

func TestAllObjects(t *testing.T) {
	for _, k := range Kinds() {
		if got := (Caller{Kind: k}).AllObjects(); got != (k == Operator || k == Admin) {
			t.Errorf("%v: %v", k, got)
		}
	}
}

const (
	gidAdmin    = 901
	gidOperator = 902
	uidGateway  = 903
	uidOwn      = 1500
	uidNamed    = 1600
	gidNamed    = 1700
)

func testAccounts() *Accounts {
	find := func(m map[string]uint32) func(string) (uint32, bool, error) {
		return func(name string) (uint32, bool, error) {
			n, ok := m[name]
			return n, ok, nil
		}
	}
	return &Accounts{
		GroupID:  find(map[string]uint32{"rtask-admin": gidAdmin, "rtask": gidOperator}),
		UserID:   find(map[string]uint32{"rtask-gateway": uidGateway}),
		UserName: func(uid uint32) string { return map[uint32]string{0: "root", uidNamed: "named"}[uid] },
	}
}

func testIdentify(t *testing.T) *Identify {
	t.Helper()
	i, err := NewIdentify(Options{
		AdminGroup: "rtask-admin", OperatorGroup: "rtask", GatewayUser: "rtask-gateway", OwnUID: uidOwn,
		Named: func(uid uint32, name string, groups []uint32) bool {
			return name == "named" && uid == uidNamed || slices.Contains(groups, gidNamed) || uid == uidGateway
		},
		Accounts: testAccounts(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestControl(t *testing.T) {
	i := testIdentify(t)
	tests := map[string]struct {
		peer Peer
		want Kind
	}{
		"root":                             {Peer{UID: 0, CgroupKnown: true}, Admin},
		"the engine's own user":            {Peer{UID: uidOwn, GID: uidOwn, CgroupKnown: true}, Admin},
		"admin by primary group":           {Peer{UID: 2000, GID: gidAdmin, CgroupKnown: true}, Admin},
		"admin by supplementary group":     {Peer{UID: 2000, GID: 2000, Groups: []uint32{5, gidAdmin}, CgroupKnown: true}, Admin},
		"operator by primary group":        {Peer{UID: 2000, GID: gidOperator, CgroupKnown: true}, Operator},
		"operator by supplementary group":  {Peer{UID: 2000, GID: 2000, Groups: []uint32{gidOperator}, CgroupKnown: true}, Operator},
		"in both groups":                   {Peer{UID: 2000, GID: gidOperator, Groups: []uint32{gidAdmin}, CgroupKnown: true}, Admin},
		"a named user":                     {Peer{UID: uidNamed, GID: 2000, CgroupKnown: true}, User},
		"named by primary group":           {Peer{UID: 2000, GID: gidNamed, CgroupKnown: true}, User},
		"named by supplementary group":     {Peer{UID: 2000, GID: 2000, Groups: []uint32{gidNamed}, CgroupKnown: true}, User},
		"a stranger":                       {Peer{UID: 2000, GID: 2000, Groups: []uint32{2001}, CgroupKnown: true}, Nobody},
		"a group's number as a user":       {Peer{UID: gidAdmin, GID: 2000, CgroupKnown: true}, Nobody},
		"the group root is no user root":   {Peer{UID: 2000, GID: 0, CgroupKnown: true}, Nobody},
		"the gateway":                      {Peer{UID: uidGateway, GID: uidGateway, CgroupKnown: true}, Nobody},
		"the gateway in the admins' group": {Peer{UID: uidGateway, Groups: []uint32{gidAdmin, gidNamed}, CgroupKnown: true}, Nobody},
		"a job as root":                    {Peer{UID: 0, InSlice: true, CgroupKnown: true}, Nobody},
		"a job as the engine's user":       {Peer{UID: uidOwn, InSlice: true, CgroupKnown: true}, Nobody},
		"a job as an operator":             {Peer{UID: 2000, GID: gidOperator, InSlice: true, CgroupKnown: true}, Nobody},
		"a job as a named user":            {Peer{UID: uidNamed, InSlice: true, CgroupKnown: true}, Nobody},
		"root, from who knows where":       {Peer{UID: 0}, Nobody},
		"an operator from who knows where": {Peer{UID: 2000, GID: gidOperator}, Nobody},
		"the zero peer":                    {Peer{}, Nobody},
	}
	for name, test := range tests {
		if got := i.Control(test.peer); got.Kind != test.want {
			t.Errorf("%s: %v, want %v", name, got.Kind, test.want)
		}
	}
}

func TestControlWithNothingSetUp(t *testing.T) {
	none := &Accounts{
		GroupID:  func(string) (uint32, bool, error) { return 0, false, nil },
		UserID:   func(string) (uint32, bool, error) { return 0, false, nil },
		UserName: func(uint32) string { return "" },
	}
	for name, opts := range map[string]Options{
		"no such groups": {AdminGroup: "rtask-admin", OperatorGroup: "rtask", GatewayUser: "rtask-gateway", OwnUID: uidOwn, Accounts: none},
		"no groups":      {OwnUID: uidOwn, Accounts: none},
	} {
		i, err := NewIdentify(opts)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		// Group 0 must not pass for a group that is not there.
		if got := i.Control(Peer{UID: 2000, GID: 0, Groups: []uint32{0}, CgroupKnown: true}).Kind; got != Nobody {
			t.Errorf("%s: a stranger is %v", name, got)
		}
		if got := i.Control(Peer{UID: uidOwn, CgroupKnown: true}).Kind; got != Admin {
			t.Errorf("%s: the engine's user is %v", name, got)
		}
		if _, err := i.Gateway(Peer{UID: 2000, CgroupKnown: true}); err != ErrForbidden {
			t.Errorf("%s: a stranger on the gateway's socket: %v", name, err)
		}
	}
}

func TestNewIdentifyFailsWithTheDatabase(t *testing.T) {
	broken := errors.New("disk on fire")
	accounts := testAccounts()
	accounts.GroupID = func(string) (uint32, bool, error) { return 0, false, broken }
	if _, err := NewIdentify(Options{AdminGroup: "rtask-admin", Accounts: accounts}); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

func TestGateway(t *testing.T) {
	i := testIdentify(t)
	tests := map[string]struct {
		peer Peer
		ok   bool
	}{
		"the gateway":           {Peer{UID: uidGateway, CgroupKnown: true}, true},
		"root":                  {Peer{UID: 0, CgroupKnown: true}, true},
		"the engine's own user": {Peer{UID: uidOwn, CgroupKnown: true}, true},
		"an admin":              {Peer{UID: 2000, GID: gidAdmin, CgroupKnown: true}, false},
		"a stranger":            {Peer{UID: 2000, GID: uidGateway, CgroupKnown: true}, false},
		"a job as root":         {Peer{UID: 0, InSlice: true, CgroupKnown: true}, false},
		"a job as the gateway":  {Peer{UID: uidGateway, InSlice: true, CgroupKnown: true}, false},
		"the zero peer":         {Peer{}, false},
	}
	for name, test := range tests {
		c, err := i.Gateway(test.peer)
		if test.ok != (err == nil) || test.ok != (c.Kind == Gateway) || !test.ok && (err != ErrForbidden || c.Kind != Nobody) {
			t.Errorf("%s: %v, %v", name, c.Kind, err)
		}
	}
}

func TestCallerName(t *testing.T) {
	i := testIdentify(t)
	if c := i.Control(Peer{UID: uidNamed, CgroupKnown: true}); c.UserName != "named" || c.Name() != "named" {
		t.Errorf("%q, %q", c.UserName, c.Name())
	}
	if c := (Caller{Kind: Remote, UserName: "root", Client: Client{Subject: "spiffe://example.org/user/alice"}}); c.Name() != "spiffe://example.org/user/alice" {
		t.Errorf("%q", c.Name())
	}
	if c := i.Control(Peer{UID: 2000, CgroupKnown: true}); c.UserName != "" || c.Name() != "2000" {
		t.Errorf("%q, %q", c.UserName, c.Name())
	}
}

func TestSystemAccounts(t *testing.T) {
	a := SystemAccounts()
	if n, ok, err := a.GroupID("root"); n != 0 || !ok || err != nil {
		t.Errorf("group root: %d, %v, %v", n, ok, err)
	}
	if n, ok, err := a.UserID("root"); n != 0 || !ok || err != nil {
		t.Errorf("user root: %d, %v, %v", n, ok, err)
	}
	if _, ok, err := a.GroupID("no-such-group-here"); ok || err != nil {
		t.Errorf("no group: %v, %v", ok, err)
	}
	if _, ok, err := a.UserID("no-such-user-here"); ok || err != nil {
		t.Errorf("no user: %v, %v", ok, err)
	}
	if got := a.UserName(0); got != "root" {
		t.Errorf("user 0 is %q", got)
	}
	if got := a.UserName(3999999999); got != "" {
		t.Errorf("user 3999999999 is %q", got)
	}
}
