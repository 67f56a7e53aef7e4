package testnet_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mayImport says which packages of ours a package may import, and nothing else:
// delta, discovery and swarm are strangers to each other; node introduces them;
// testnet and cmd sit on top.
var mayImport = map[string][]string{
	"delta/chunk":                {},
	"delta/patch":                {},
	"delta/patch/internal/lz4":   {"delta/patch/internal/parse"},
	"delta/patch/internal/xz":    {"delta/patch/internal/parse"},
	"delta/patch/internal/zstd":  {"delta/patch/internal/parse"},
	"delta/patch/internal/layer": {"delta/patch/internal/deflate", "delta/patch/internal/lz4", "delta/patch/internal/xz", "delta/patch/internal/zstd"},
	"delta/release":              {},
	"delta/tree":                 {},
	"delta":                      {"delta/chunk", "delta/patch", "delta/release", "delta/tree"},
	"discovery":                  {},
	"discovery/mdns":             {"discovery"},
	"discovery/dht":              {"discovery"},
	"swarm/wire":                 {},
	"swarm/lease":                {},
	"swarm/limit":                {},
	"swarm/origin":               {"swarm/limit"},
	"swarm":                      {"swarm/wire", "swarm/lease", "swarm/limit"},
	"node/identity":              {},
	"node/report":                {},
	"node/install":               {"delta/release"},
	"node/fleet":                 {"node/identity", "delta/release"},
	"node":                       {"node/...", "delta/...", "discovery/...", "swarm/..."},
	"testnet/simhost":            {},
	"testnet/fixture":            {"delta/release"},
	"testnet/leaks":              {},
	"testnet/netns":              {},
	"testnet":                    {"node/...", "delta/...", "discovery", "swarm/origin", "swarm/limit", "testnet/..."},
	"testnet/scale":              {"swarm", "swarm/lease", "testnet/simhost"},
	"cmd/updraft":                {"node/...", "delta/...", "discovery", "swarm/origin", "swarm/limit", "testnet", "testnet/fixture"},
}

// owners says which packages may import a heavy dependency, and why only those.
var owners = map[string][]string{
	"github.com/grandcat/zeroconf":         {}, // a stranger in tests
	"github.com/miekg/dns":                 {"discovery/mdns"},
	"github.com/libp2p/go-libp2p-kad-dht":  {"discovery/dht"},
	"github.com/klauspost/compress":        {"delta", "delta/patch", "delta/patch/...", "swarm"},
	"github.com/theupdateframework/go-tuf": {"delta/release"},
	"filippo.io/age":                       {"delta/release"},
	"github.com/VictoriaMetrics/metrics":   {"node/report"},
	"github.com/adhocore/gronx":            {"swarm/limit"},
	"github.com/spf13/cobra":               {"cmd/updraft"},
	"github.com/vbauerster/mpb":            {"cmd/updraft"},
	"github.com/libp2p/go-libp2p/":         {"discovery/...", "swarm", "swarm/lease", "swarm/wire", "node/...", "testnet/..."},
	"go.yaml.in/yaml":                      {"node"},
	"github.com/libp2p/go-libp2p/x/":       {"testnet/simhost", "swarm"}, // x/rate only outside of simhost
	"github.com/marcopolo/simnet":          {"testnet/simhost"},
}

// inTests may be imported by test files of any package.
var inTests = []string{"testnet/simhost", "testnet/fixture", "testnet/leaks", "delta/patch/internal/parse/parsetest"}

// The budget of sizes, in lines. A file above maxFile is reported; too many of
// them, or one function above maxFunc, are an error.
const (
	maxFile  = 500 // 95 of 100 files are at most so long
	longFunc = 60  // 95 of 100 functions are at most so long
	maxFunc  = 120
)

type source struct {
	pkg, file string
	test      bool
	ast       *ast.File
	lines     int
	fset      *token.FileSet
}

// length returns how many lines n covers.
func (s source) length(n ast.Node) int {
	return s.fset.Position(n.End()).Line - s.fset.Position(n.Pos()).Line + 1
}

// sources parses every file of the module itself: asking the go command would let
// the test cache hide a change.
func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	fset := token.NewFileSet()
	root := ".."
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		out = append(out, source{path.Dir(filepath.ToSlash(rel)), rel, strings.HasSuffix(p, "_test.go"), f, fset.File(f.Pos()).LineCount(), fset})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 50 {
		t.Fatalf("only %d files found", len(out))
	}
	return out
}

// matches reports whether pkg is one of list; "a/..." is a and all below.
func matches(list []string, pkg string) bool {
	return slices.ContainsFunc(list, func(p string) bool {
		if sub, ok := strings.CutSuffix(p, "/..."); ok {
			return pkg == sub || strings.HasPrefix(pkg, sub+"/")
		}
		return p == pkg
	})
}

func TestLayers(t *testing.T) {
	seen := map[string]bool{}
	defer func() {
		for pkg := range mayImport {
			if !seen[pkg] {
				t.Errorf("the table of layers names %s, which is not there", pkg)
			}
		}
	}()
	for _, s := range sources(t) {
		seen[s.pkg] = true
		allowed, ok := mayImport[s.pkg]
		if !ok && !strings.Contains(s.pkg, "/internal/") {
			t.Errorf("%s: package %s is not in the table of layers", s.file, s.pkg)
			continue
		}
		for _, im := range s.ast.Imports {
			name := strings.Trim(im.Path.Value, `"`)
			for dep, may := range owners {
				if strings.HasPrefix(name, dep) && !s.test && !matches(may, s.pkg) {
					t.Errorf("%s imports %s, which belongs to %v", s.file, name, may)
				}
			}
			if name == "github.com/libp2p/go-libp2p" && !s.test {
				t.Errorf("%s imports package libp2p, which adds 9 MB of unused transports", s.file)
			}
			ours, ok := strings.CutPrefix(name, "updraft/")
			if !ok || ours == s.pkg || strings.HasPrefix(ours, s.pkg+"/internal/") {
				continue
			}
			// An external test of node may play the publisher, one of cmd anything.
			if s.test && (matches(inTests, ours) || s.pkg == "node" || strings.HasPrefix(s.pkg, "testnet")) {
				continue
			}
			if !matches(allowed, ours) {
				t.Errorf("%s: %s may not import %s", s.file, s.pkg, ours)
			}
		}
	}
}

func TestPackageComments(t *testing.T) {
	has := map[string]bool{}
	for _, s := range sources(t) {
		if !s.test {
			has[s.pkg] = has[s.pkg] || s.ast.Doc != nil
		}
	}
	for pkg, ok := range has {
		if !ok {
			t.Errorf("package %s has no package comment", pkg)
		}
	}
}

// TestShape keeps what makes a program hard to follow out of it.
func TestShape(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, d := range s.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s: function init", s.file)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if ts, ok := spec.(*ast.TypeSpec); ok {
						checkType(t, s.file, ts)
					}
				}
			}
		}
	}
}

func checkType(t *testing.T, file string, ts *ast.TypeSpec) {
	switch x := ts.Type.(type) {
	case *ast.StructType:
		for _, f := range x.Fields.List {
			if sel, ok := f.Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "Context" {
				t.Errorf("%s: struct %s keeps a context", file, ts.Name.Name)
			}
		}
	case *ast.InterfaceType:
		if n := x.Methods.NumFields(); n > 6 {
			t.Errorf("%s: interface %s has %d methods", file, ts.Name.Name, n)
		}
	}
}

// TestBudget reports what grows long, and fails when that becomes the rule.
func TestBudget(t *testing.T) {
	var files, funcs []int
	code, tests := 0, 0
	for _, s := range sources(t) {
		if s.test {
			tests += s.lines
			continue
		}
		code += s.lines
		files = append(files, s.lines)
		if s.lines > maxFile {
			t.Logf("%s has %d lines, %d are the budget", s.file, s.lines, maxFile)
		}
		for _, d := range s.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			n := s.length(fn)
			funcs = append(funcs, n)
			if n > maxFunc {
				t.Errorf("%s: function %s has %d lines, at most %d", s.file, fn.Name.Name, n, maxFunc)
			}
		}
	}
	p95 := func(list []int) int {
		slices.Sort(list)
		return list[len(list)*95/100]
	}
	t.Logf("%d files, %d functions, %d lines; %.2f lines of tests for each", len(files), len(funcs), code, float64(tests)/float64(code))
	if n := p95(files); n > maxFile {
		t.Errorf("95 of 100 files have up to %d lines, %d are the budget", n, maxFile)
	}
	if n := p95(funcs); n > longFunc {
		t.Errorf("95 of 100 functions have up to %d lines, %d are the budget", n, longFunc)
	}
}
