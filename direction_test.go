package rtask_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestOneDirection: in these packages no two files need each other, be it by way of others. So a reader can begin at the bottom, and
// what stands below can be understood without what uses it.
func TestOneDirection(t *testing.T) {
	for _, dir := range []string{"daemon/job", "daemon/store", "sandbox/cgroup", "sandbox/jail", "sandbox/jail/fork", "sandbox/log", "sandbox/scope", "sandbox/shim"} {
		uses := usesOfFiles(t, dir)
		if len(uses) == 0 {
			t.Errorf("%s: no file uses another one: this test looks at the wrong things", dir)
		}
		for _, from := range slices.Sorted(maps.Keys(uses)) {
			if way := wayBack(uses, from, from, map[string]bool{}); way != nil {
				t.Errorf("%s: files need each other: %s", dir, strings.Join(append([]string{from}, way...), " → "))
				break
			}
		}
	}
}

// wayBack returns how one gets from a file to another one, or nil.
func wayBack(uses map[string]map[string]string, from, to string, seen map[string]bool) []string {
	for _, next := range slices.Sorted(maps.Keys(uses[from])) {
		step := next + " (" + uses[from][next] + ")"
		if next == to {
			return []string{step}
		}
		if seen[next] {
			continue
		}
		seen[next] = true
		if way := wayBack(uses, next, to, seen); way != nil {
			return append([]string{step}, way...)
		}
	}
	return nil
}

// usesOfFiles returns, for each file of a package, the files of which it uses something, and what: functions, types, fields, methods.
func usesOfFiles(t *testing.T, dir string) map[string]map[string]string {
	fset, _, info := typed(t, dir)
	uses := map[string]map[string]string{}
	for id, o := range info.Uses {
		if o == nil || !o.Pos().IsValid() {
			continue
		}
		from, to := filepath.Base(fset.Position(id.Pos()).Filename), filepath.Base(fset.Position(o.Pos()).Filename)
		if from == to {
			continue
		}
		if uses[from] == nil {
			uses[from] = map[string]string{}
		}
		if before := uses[from][to]; before == "" || o.Name() < before {
			uses[from][to] = o.Name()
		}
	}
	return uses
}

// noPackages imports nothing: what these tests look at is in the package itself.
type noPackages struct{}

func (noPackages) Import(string) (*types.Package, error) { return nil, errors.New("not imported") }

// typed reads a package without its tests.
func typed(t *testing.T, dir string) (*token.FileSet, []*ast.File, *types.Info) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, p := range paths {
		if strings.HasSuffix(p, "_test.go") || strings.Contains(p, "_arm64.") {
			continue
		}
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	// What it does not know of other packages are no errors.
	_, _ = (&types.Config{Importer: noPackages{}, Error: func(error) {}}).Check(dir, fset, files, info)
	return fset, files, info
}
