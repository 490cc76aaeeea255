package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Locate returns the options to check what is at a path, which need not be where an engine looks: a folder with rtask.hcl or
// tasks.d in it, a folder of task files, a configuration file, or a file of tasks, whatever its name is. Part of a
// configuration may name tasks that stand elsewhere, and who owns a file, and may write it, is not looked at.
func Locate(path string) (Options, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Options{}, fmt.Errorf("cannot check it: %w", err)
	}
	opts := Options{Elsewhere: true}
	if info.IsDir() {
		file, dir := filepath.Join(path, "rtask.hcl"), filepath.Join(path, "tasks.d")
		if !exists(file) && !exists(dir) {
			opts.Dir, opts.Part = path, true
			return opts, nil
		}
		opts.File, opts.Dir = file, dir
		return opts, nil
	}
	opts.Part = true
	data, err := ReadTrusted(path, anybody)
	if err == nil {
		data, err = asText(data)
	}
	if err != nil {
		d := fileError(path, err)
		return Options{}, fmt.Errorf("cannot check %s: %s", path, strings.TrimPrefix(d.Summary, "refused: "))
	}
	if isRoot(path, data) {
		opts.File = path
	} else {
		opts.TaskFile = path
	}
	return opts, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// isRoot tells a configuration file from one of tasks: by its name, or by what stands in it. Editors and Ansible check copies
// whose names say nothing.
func isRoot(path string, data []byte) bool {
	if base := filepath.Base(path); base == "rtask.hcl" || strings.HasSuffix(base, ".toml") {
		return base == "rtask.hcl"
	}
	if isJSON(path, data) {
		return !bytes.Contains(data, []byte(`"task"`)) && regexp.MustCompile(`"(`+strings.Join(rootScope().names(), "|")+`)"`).Match(data)
	}
	if regexp.MustCompile(`(?m)^\s*task\b`).Match(data) {
		return false
	}
	return regexp.MustCompile(`(?m)^\s*(` + strings.Join(rootScope().names(), "|") + `)\s*[={]`).Match(data)
}

// isJSON reports whether a file is in HCL's JSON syntax.
func isJSON(path string, data []byte) bool {
	return strings.HasSuffix(path, ".json") || bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{"))
}
