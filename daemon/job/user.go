package job

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rtask/rtask/sandbox/spec"
)

const (
	// defaultPath is systemd's default for services (systemd.exec(5), "Environment Variables in Spawned Processes").
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// dynamicName is what a job's own user is called.
	dynamicName = "rtask-job"
)

// User is who a job runs as.
type User struct {
	Name  string
	Home  string
	Shell string
	spec.Credentials
}

// LookupUser finds a user of this machine by name or number, with all groups it is in.
func LookupUser(name string) (*User, error) {
	u, err := user.Lookup(name)
	if _, unknown := err.(user.UnknownUserError); unknown {
		if byID, idErr := user.LookupId(name); idErr == nil {
			u, err = byID, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot find user %q: %w", name, err)
	}
	r := &User{Name: u.Username, Home: u.HomeDir, Shell: shellOf(u.Username)}
	if r.UID, err = number(u.Uid); err != nil {
		return nil, err
	}
	if r.GID, err = number(u.Gid); err != nil {
		return nil, err
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("cannot find the groups of user %q: %w", name, err)
	}
	for _, g := range groups {
		gid, err := number(g)
		if err != nil {
			return nil, err
		}
		r.Groups = append(r.Groups, gid)
	}
	return r, nil
}

// LookupGroup finds a group by name or number.
func LookupGroup(name string) (uint32, error) {
	g, err := user.LookupGroup(name)
	if _, unknown := err.(user.UnknownGroupError); unknown {
		if byID, idErr := user.LookupGroupId(name); idErr == nil {
			g, err = byID, nil
		}
	}
	if err != nil {
		return 0, fmt.Errorf("cannot find group %q: %w", name, err)
	}
	return number(g.Gid)
}

// LookPath finds a command of this name in the PATH that a job has where nothing else is said.
func LookPath(name string) (path string, ok bool) {
	if name == "" || strings.ContainsAny(name, "/\x00") {
		return "", false
	}
	for _, dir := range filepath.SplitList(defaultPath) {
		path = filepath.Join(dir, name)
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return path, true
		}
	}
	return "", false
}

// UserOf returns the user with these credentials, who need not be in /etc/passwd.
func UserOf(c spec.Credentials) *User {
	u := &User{Name: strconv.FormatUint(uint64(c.UID), 10), Home: "/", Shell: "/bin/sh", Credentials: c}
	if known, err := user.LookupId(u.Name); err == nil {
		u.Name, u.Home, u.Shell = known.Username, known.HomeDir, shellOf(known.Username)
	}
	return u
}

// shellOf reads the login shell (passwd(5)), which package os/user leaves out.
func shellOf(name string) string {
	b, err := os.ReadFile("/etc/passwd")
	if err == nil {
		for line := range strings.Lines(string(b)) {
			f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
			if len(f) == 7 && f[0] == name && f[6] != "" {
				return f[6]
			}
		}
	}
	return "/bin/sh"
}

func number(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("cannot use %q as a user or group number: %w", s, err)
	}
	return uint32(n), nil
}

// dynamic is the user of a job that has one of its own.
func dynamic(uid uint32) *User {
	return &User{Name: dynamicName, Home: "/", Shell: "/bin/sh", Credentials: spec.Credentials{UID: uid, GID: uid}}
}
