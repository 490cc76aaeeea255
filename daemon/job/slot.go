package job

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox"
	"github.com/rtask/rtask/sandbox/spec"
)

// slot is a slot of the pool. The pool's lock guards all of it, except what is set before the slot is shared.
type slot struct {
	id   string
	unit string
	// key is what its jobs have in common (see slotKey), "" for a slot that runs one job only.
	key  string
	of   configuration
	keep time.Duration
	uid  uint32 // lent to it, 0: none

	open    *sandbox.Slot // nil before it is opened
	shown   string        // the id of the job that the scope's description names
	expiry  *time.Timer   // while it waits
	dropped bool
}

// configuration is a task as one configuration has it.
type configuration struct{ task, config string }

func (j *Job) configuration() configuration { return configuration{j.Task, j.Config} }

// slotKey names what the jobs of a slot have in common: the task's configuration, the user, and the very files that the slot
// binds. A folder that was replaced since has another key. Call it without a lock: looking at the files can take long, for example on
// a network file system whose server is down.
func slotKey(j *Job) string {
	if j.Single() && j.Task == "" {
		return ""
	}
	shared := struct {
		Task, Config string
		Keep         time.Duration
		User         *spec.Credentials
		Limits       spec.Limits
		Sandbox      spec.Sandbox
		Stop         time.Duration
		Files        []string
	}{Task: j.Task, Config: j.Config, Keep: j.Keep, User: j.Credentials, Limits: j.Limits, Sandbox: j.Sandbox, Stop: j.TimeoutStop}
	if j.Dynamic {
		shared.User = &spec.Credentials{Groups: shared.User.Groups}
		if j.Group != nil {
			shared.User.GID = *j.Group
		}
	}
	for _, f := range j.Sandbox.Sources(j.Dir) {
		shared.Files = append(shared.Files, identity(f))
	}
	b, err := json.Marshal(shared)
	if err != nil {
		return "" // its own slot then; there is nothing in it that could not be encoded
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// identity tells the file at path from another one that takes its place, and for a file that is copied, from what it was.
func identity(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err.Error()
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Sprint(st.Dev, " ", st.Ino)
	}
	return fmt.Sprint(st.Dev, " ", st.Ino, " ", st.Size, " ", st.Mtim.Sec, " ", st.Mtim.Nsec)
}

// lend gives a job that names no user the uid of its slot. A slot without a uid must never be lent to such a job: it would run as
// root.
func (s *slot) lend(j *Job) error {
	if !j.Dynamic {
		return nil
	}
	if s.uid == 0 {
		return fmt.Errorf("slot %s has no number for the user of job %s", s.id, j.ID)
	}
	c := *j.Credentials // the snapshots of before keep theirs
	c.UID, c.GID = s.uid, s.uid
	if j.Group != nil {
		c.GID = *j.Group
	}
	j.Credentials = &c
	return nil
}

// isGone reports whether the shim of a slot has ended.
func isGone(s *slot) bool { return isClosed(s.open.Gone()) }

// warm says how many slots of a task are kept ready.
type warm struct {
	key      string // of the slots; another one once a file that they bind was replaced
	template Job
	want     int
	opening  int
	pause    bool // the last one could not be opened
}
