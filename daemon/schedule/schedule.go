// Package schedule makes the systemd units by which tasks start by themselves: a timer for the schedule of a task, and path units for
// what it watches. Services of the package start the task, one instance for each: rtask-schedule@TASK.service, rtask-path@TASK.service
// and rtask-exists@TASK.service.
//
// It knows nothing of D-Bus or of files but those that Write makes. The generator and the engine use it, so that the engine knows what
// the generator made.
package schedule

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/rtask/rtask/daemon/config"
)

// Folder is where systemd's generators of the system write to, systemd.generator(7): the first of their three folders.
const Folder = "/run/systemd/generator"

// wanted is the folder of the links by which rtask.socket starts the units: tasks start by themselves while rtask is on.
const wanted = "rtask.socket.wants"

// Patterns match the names of all units that Units makes, and no others.
func Patterns() []string {
	return []string{Timer("*"), "rtask-path@*.path", "rtask-exists@*.path"}
}

// Timer is the name of the timer of a task. Names of tasks need no escapes in an instance's name.
func Timer(task string) string { return "rtask-schedule@" + task + ".timer" }

// Units returns the units of all tasks that are enabled, their texts by their names.
func Units(tasks map[string]*config.Task, enabled func(*config.Task) bool) map[string]string {
	all := map[string]string{}
	for name, t := range tasks {
		if !enabled(t) {
			continue
		}
		if s := t.Schedule; s != nil {
			all[Timer(name)] = timer(t, s)
		}
		if w := t.Watch; w != nil {
			// The service of the first ends when the job was accepted, so that few changes fall into its time. That of the second ends
			// with the job: systemd looks then whether the job left something.
			add(all, "rtask-path@"+name+".path", t, lines("PathChanged", w.Changed)+lines("PathModified", w.Modified))
			add(all, "rtask-exists@"+name+".path", t, lines("PathExists", w.Exists)+lines("DirectoryNotEmpty", w.DirectoryNotEmpty))
		}
	}
	return all
}

func timer(t *config.Task, s *config.Schedule) string {
	text := head("Schedule of Task", t) + "\n[Timer]\n" + lines("OnCalendar", s.OnCalendar)
	if s.Persistent {
		text += "Persistent=yes\n"
	}
	if s.RandomizedDelay > 0 {
		text += fmt.Sprintf("RandomizedDelaySec=%dus\n", s.RandomizedDelay/time.Microsecond)
	}
	return text + "AccuracySec=1s\n"
}

func add(all map[string]string, name string, t *config.Task, watched string) {
	if watched != "" {
		all[name] = head("Paths of Task", t) + apart + "\n[Path]\n" + watched
	}
}

// apart keeps a boot from waiting for a watched path. systemd has a path unit wait for the mount of what it watches; if paths.target, and
// so basic.target, waited for the unit, a path of the network would wait for itself.
const apart = "DefaultDependencies=no\nRequires=sysinit.target\nAfter=sysinit.target\nConflicts=shutdown.target\nBefore=shutdown.target\n"

// head is the section [Unit].
func head(of string, t *config.Task) string {
	text := fmt.Sprintf("# Made by rtask-generator of the configuration of rtask. See rtask.hcl(5).\n[Unit]\nDescription=%s %s\nDocumentation=man:rtask.hcl(5)\n", of, t.Name)
	if file := t.Pos.File; filepath.IsAbs(file) && !strings.ContainsFunc(file, unicode.IsControl) && !strings.HasSuffix(file, `\`) {
		text += "SourcePath=" + escape(file) + "\n"
	}
	// When rtask is turned off, nothing starts by itself.
	return text + "PartOf=rtask.socket\nStartLimitIntervalSec=0\n"
}

// lines are a setting with each of its values. package config has checked that each is one line.
func lines(setting string, values []string) string {
	var b strings.Builder
	for _, v := range values {
		b.WriteString(setting + "=" + escape(v) + "\n")
	}
	return b.String()
}

// escape keeps systemd from finding specifiers, systemd.unit(5).
func escape(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// Write writes units into a generator's folder, with the links by which they are started.
func Write(dir string, units map[string]string) error {
	if len(units) == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(dir, wanted), 0o755); err != nil {
		return fmt.Errorf("cannot make the folder of the links: %w", err)
	}
	for name, text := range units {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("cannot write a unit: %w", err)
		}
		if err := os.Symlink("../"+name, filepath.Join(dir, wanted, name)); err != nil {
			return fmt.Errorf("cannot link a unit: %w", err)
		}
	}
	return nil
}

// Read returns what Write wrote into a folder the last time.
func Read(dir string) (map[string]string, error) {
	all := map[string]string{}
	for _, pattern := range Patterns() {
		names, err := fs.Glob(os.DirFS(dir), pattern)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				return nil, fmt.Errorf("cannot read a unit: %w", err)
			}
			all[name] = string(b)
		}
	}
	return all, nil
}
