// Typecheck checks the types of packages and of their tests on another architecture, from source, as a compiler there would:
// what a system call takes differs between architectures. It compiles nothing, since for that the standard library and
// everything else would be compiled, too, which nobody needs.
//
//	go run ./packaging/typecheck GOARCH PACKAGE...
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: typecheck GOARCH PACKAGE...")
		os.Exit(2)
	}
	errs, err := check(os.Args[1], os.Args[2:])
	told := map[string]bool{} // a package may be checked anew for a test
	for _, e := range errs {
		if !told[e.Error()] {
			fmt.Fprintln(os.Stderr, e)
		}
		told[e.Error()] = true
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "typecheck:", err)
	}
	if err != nil || len(errs) > 0 {
		os.Exit(1)
	}
}

// listed is what `go list -deps -test` says of a package; dependencies come before those that import them. A package that is
// compiled anew for a test is one of its own, named "PATH [TEST]".
type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	ImportMap  map[string]string
	DepOnly    bool
	Module     *struct{ GoVersion string }
}

// check returns what is wrong with the packages that match the patterns.
func check(arch string, patterns []string) (wrong []error, err error) {
	cmd := exec.Command("go", append([]string{"list", "-deps", "-test", "-json=ImportPath,Dir,GoFiles,ImportMap,DepOnly,Module"}, patterns...)...)
	cmd.Env = append(os.Environ(), "GOARCH="+arch, "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("cannot list packages: %w", err)
	}
	sizes := types.SizesFor("gc", arch)
	if sizes == nil {
		return nil, fmt.Errorf("there is no architecture %q", arch)
	}
	files := token.NewFileSet()
	checked := map[string]*types.Package{"unsafe": types.Unsafe}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return wrong, nil
		} else if err != nil {
			return nil, err
		}
		path, _, _ := strings.Cut(p.ImportPath, " ")
		if checked[p.ImportPath] != nil || strings.HasSuffix(path, ".test") { // the latter are made up by go test
			continue
		}
		var parsed []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			parsed = append(parsed, f)
		}
		config := types.Config{
			// Of what is only imported, what it declares is all that matters.
			IgnoreFuncBodies: p.DepOnly,
			Sizes:            sizes,
			Error:            func(err error) { wrong = append(wrong, err) },
			Importer: importer(func(path string) (*types.Package, error) {
				if to, ok := p.ImportMap[path]; ok {
					path = to
				}
				if found := checked[path]; found != nil {
					return found, nil
				}
				return nil, fmt.Errorf("%s imports %s, which is not listed before it", p.ImportPath, path)
			}),
		}
		if p.Module != nil && p.Module.GoVersion != "" {
			config.GoVersion = "go" + p.Module.GoVersion
		}
		checked[p.ImportPath], _ = config.Check(path, files, parsed, nil) // Error has had what it returns
	}
}

// importer is a types.Importer that is a function.
type importer func(path string) (*types.Package, error)

func (i importer) Import(path string) (*types.Package, error) { return i(path) }
