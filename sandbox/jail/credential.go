package jail

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/safepath"
	"github.com/rtask/rtask/sandbox/spec"
)

// maxCredential is the largest credential, in bytes, as systemd has it (systemd.exec(5), LoadCredential=).
const maxCredential = 1 << 20

// credential is one that was read.
type credential struct {
	name    string
	content []byte
}

func readCredentials(list []spec.Credential) ([]credential, error) {
	var all []credential
	for _, c := range list {
		b, err := readSome(c.Path, maxCredential)
		if err != nil {
			return nil, switchError("load_credential", c.Path, unwrapPath(err))
		}
		all = append(all, credential{c.Name, b})
	}
	return all, nil
}

// readSome reads a regular file of most bytes.
func readSome(path string, most int64) ([]byte, error) {
	f, err := safepath.OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, cmp.Or(err, errors.New("it is not a regular file"))
	}
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil, err
	}
	if n, _ := f.Read(make([]byte, 1)); n > 0 {
		return nil, fmt.Errorf("it is larger than %d bytes", most)
	}
	return b, nil
}

// hand gives the job its credentials, in a folder that only the job can read.
func (f *furnisher) hand(all []credential, at string, c *spec.Credentials) error {
	if len(all) == 0 {
		return nil
	}
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	if c != nil {
		uid, gid = c.UID, c.GID
	}
	const attrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	size := 0
	for _, one := range all {
		size += len(one.content) + os.Getpagesize()
	}
	fs, err := newFS("tmpfs", fmt.Sprintf("mode=700,uid=%d,gid=%d,size=%d,nr_inodes=%d", uid, gid, size+os.Getpagesize(), len(all)+2), attrs)
	if err != nil {
		return err
	}
	f.trees = append(f.trees, fs)
	for _, one := range all {
		fd, err := unix.Openat(int(fs.Fd()), one.name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o400)
		if err != nil {
			return err
		}
		file := os.NewFile(uintptr(fd), one.name)
		_, err = file.Write(one.content)
		if err := errors.Join(err, unix.Fchown(fd, int(uid), int(gid)), file.Close()); err != nil {
			return err
		}
	}
	if err := unix.Fchmodat(int(fs.Fd()), ".", 0o500, 0); err != nil {
		return err
	}
	if err := attributes(int(fs.Fd()), unix.MOUNT_ATTR_RDONLY, false); err != nil {
		return err
	}
	if err := f.makeTarget(place{path: at, content: private}, nil); err != nil {
		return err
	}
	return f.attach(fs, at, false)
}
