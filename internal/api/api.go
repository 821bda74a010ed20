// Package api lists what packages export, a line for each name, as the files api/*.txt of
// Go itself do. Tests compare the list with a file, so that no change of it goes unseen.
package api

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// pkg is a package as go list describes it.
type pkg struct {
	ImportPath, Dir string
	GoFiles         []string
	ImportMap       map[string]string
	DepOnly         bool
	Error           *struct{ Err string }
}

// source reads Go files, each of them once: most are the same on every platform.
type source struct {
	fset  *token.FileSet
	files map[string]*ast.File
}

func (s *source) read(name string) (*ast.File, error) {
	if file := s.files[name]; file != nil {
		return file, nil
	}
	file, err := parser.ParseFile(s.fset, name, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Body != nil {
			f.Body.List = nil // what functions do is not looked at
		}
	}
	s.files[name] = file
	return file, nil
}

// list returns the lines for each package that the patterns of go list name, by import
// path, on a platform such as linux/amd64. Packages whose path begins with module are
// named by the rest of it.
func (s *source) list(platform, module string, patterns ...string) (map[string][]string, error) {
	goos, goarch, _ := strings.Cut(platform, "/")
	cmd := exec.Command("go", append([]string{"list", "-deps", "-json=ImportPath,Dir,GoFiles,ImportMap,DepOnly,Error"}, patterns...)...)
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, &stderr)
	}
	lists := make(map[string][]string)
	read := map[string]*types.Package{"unsafe": types.Unsafe}
	sizes := types.SizesFor("gc", goarch)
	for d := json.NewDecoder(bytes.NewReader(out)); ; { // what a package imports comes before it
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			return lists, nil
		} else if err != nil {
			return nil, err
		}
		if p.Error != nil {
			return nil, errors.New(p.Error.Err)
		}
		if p.ImportPath == "unsafe" {
			continue
		}
		checked, err := s.check(p, read, sizes)
		if err != nil {
			return nil, fmt.Errorf("%s for %s: %w", p.ImportPath, platform, err)
		}
		read[p.ImportPath] = checked
		if !p.DepOnly {
			lists[p.ImportPath] = lines(checked, module)
		}
	}
}

type importer func(path string) (*types.Package, error)

func (i importer) Import(path string) (*types.Package, error) { return i(path) }

// check finds out about the types of a package, but not what functions do.
func (s *source) check(p pkg, read map[string]*types.Package, sizes types.Sizes) (*types.Package, error) {
	var files []*ast.File
	for _, name := range p.GoFiles {
		file, err := s.read(filepath.Join(p.Dir, name))
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	config := types.Config{
		IgnoreFuncBodies: true,
		Sizes:            sizes,
		Importer: importer(func(path string) (*types.Package, error) {
			found := read[cmp.Or(p.ImportMap[path], path)]
			if found == nil {
				return nil, fmt.Errorf("%s was not listed", path)
			}
			return found, nil
		}),
	}
	var first error
	config.Error = func(err error) {
		// Without bodies, imports look unused.
		if first == nil && !strings.Contains(err.Error(), "imported and not used") && !strings.Contains(err.Error(), "imported as") {
			first = err
		}
	}
	checked, _ := config.Check(p.ImportPath, s.fset, files, nil)
	return checked, first
}

// lister writes the lines of a package.
type lister struct {
	of     *types.Package
	module string
	lines  []string
}

func lines(p *types.Package, module string) []string {
	l := &lister{of: p, module: module}
	for _, name := range p.Scope().Names() {
		if obj := p.Scope().Lookup(name); obj.Exported() {
			l.object(obj)
		}
	}
	slices.Sort(l.lines)
	return l.lines
}

func (l *lister) add(format string, args ...any) {
	l.lines = append(l.lines, "pkg "+l.qualify(l.of)+", "+fmt.Sprintf(format, args...))
}

// qualify names a package: from the module if it is of that, else by its whole path.
func (l *lister) qualify(p *types.Package) string {
	if p.Path() == l.module {
		return p.Name()
	}
	return strings.TrimPrefix(p.Path(), l.module+"/")
}

// text is a type without the names of parameters, which are not what callers depend on.
func (l *lister) text(t types.Type) string {
	return types.TypeString(bare(t), func(p *types.Package) string {
		if p == l.of {
			return ""
		}
		return l.qualify(p)
	})
}

func bare(t types.Type) types.Type {
	switch t := t.(type) {
	case *types.Pointer:
		return types.NewPointer(bare(t.Elem()))
	case *types.Slice:
		return types.NewSlice(bare(t.Elem()))
	case *types.Array:
		return types.NewArray(bare(t.Elem()), t.Len())
	case *types.Map:
		return types.NewMap(bare(t.Key()), bare(t.Elem()))
	case *types.Chan:
		return types.NewChan(t.Dir(), bare(t.Elem()))
	case *types.Signature:
		return types.NewSignatureType(nil, nil, nil, unnamed(t.Params()), unnamed(t.Results()), t.Variadic())
	}
	return t
}

func unnamed(t *types.Tuple) *types.Tuple {
	var vars []*types.Var
	for v := range t.Variables() {
		vars = append(vars, types.NewParam(token.NoPos, nil, "", bare(v.Type())))
	}
	return types.NewTuple(vars...)
}

// signature is that of a function, without the word func.
func (l *lister) signature(t types.Type) string { return strings.TrimPrefix(l.text(t), "func") }

func (l *lister) object(obj types.Object) {
	switch obj := obj.(type) {
	case *types.Const:
		l.add("const %s %s = %s", obj.Name(), l.text(obj.Type()), obj.Val().ExactString())
	case *types.Var:
		l.add("var %s %s", obj.Name(), l.text(obj.Type()))
	case *types.Func:
		l.add("func %s%s", obj.Name(), l.signature(obj.Type()))
	case *types.TypeName:
		if obj.IsAlias() {
			l.add("type %s = %s", obj.Name(), l.text(types.Unalias(obj.Type())))
			return
		}
		l.declared(obj)
	}
}

func (l *lister) declared(obj *types.TypeName) {
	named := obj.Type().(*types.Named)
	switch t := named.Underlying().(type) {
	case *types.Struct:
		l.add("type %s struct", obj.Name())
		l.fields(obj.Name(), t)
	case *types.Interface:
		l.add("type %s interface", obj.Name())
		for embedded := range t.EmbeddedTypes() {
			l.add("type %s interface, embedded %s", obj.Name(), l.text(embedded))
		}
		for m := range t.ExplicitMethods() {
			if m.Exported() {
				l.add("type %s interface, %s%s", obj.Name(), m.Name(), l.signature(m.Type()))
			} else {
				l.add("type %s interface, unexported methods", obj.Name())
			}
		}
		return
	default:
		l.add("type %s %s", obj.Name(), l.text(t))
	}
	// Methods that an exported field brings along are its own; those of others are not
	// to be found anywhere else.
	values := types.NewMethodSet(named)
	for m := range types.NewMethodSet(types.NewPointer(named)).Methods() {
		if !m.Obj().Exported() || len(m.Index()) > 1 && named.Underlying().(*types.Struct).Field(m.Index()[0]).Exported() {
			continue
		}
		star := "*"
		if values.Lookup(m.Obj().Pkg(), m.Obj().Name()) != nil {
			star = ""
		}
		l.add("method (%s%s) %s%s", star, obj.Name(), m.Obj().Name(), l.signature(m.Type()))
	}
}

func (l *lister) fields(of string, t *types.Struct) {
	for f := range t.Fields() {
		switch {
		case f.Exported() && f.Embedded():
			l.add("type %s struct, embedded %s", of, l.text(f.Type()))
		case f.Exported():
			l.add("type %s struct, %s %s", of, f.Name(), l.text(f.Type()))
		}
	}
}

// diff returns what is in one of two sorted lists alone, with - or + in front; it is
// empty if they are equal.
func diff(before, after []string) string {
	var b strings.Builder
	for len(before) > 0 || len(after) > 0 {
		switch {
		case len(before) > 0 && len(after) > 0 && before[0] == after[0]:
			before, after = before[1:], after[1:]
		case len(after) == 0 || len(before) > 0 && before[0] < after[0]:
			fmt.Fprintf(&b, "-%s\n", before[0])
			before = before[1:]
		default:
			fmt.Fprintf(&b, "+%s\n", after[0])
			after = after[1:]
		}
	}
	return b.String()
}

// platforms are those on which a package must export the same; the first is listed.
var platforms = []string{"linux/amd64", "linux/386", "linux/arm64", "darwin/arm64", "freebsd/amd64", "windows/amd64"}

// Compare says how the packages that the patterns name differ from their lists, which are
// testdata/api/NAME.txt in the current folder, and from themselves on other platforms. It
// returns "" if they do not. With update it writes the lists first.
func Compare(module string, update bool, patterns ...string) (report string, err error) {
	s := &source{fset: token.NewFileSet(), files: make(map[string]*ast.File)}
	lists, err := s.list(platforms[0], module, patterns...)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(lists)) {
		file := filepath.Join("testdata", "api", path[strings.LastIndex(path, "/")+1:]+".txt")
		if update {
			if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
				return "", err
			}
			if err := os.WriteFile(file, []byte(strings.Join(lists[path], "\n")+"\n"), 0o666); err != nil {
				return "", err
			}
			continue
		}
		listed, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		text := strings.TrimSpace(strings.ReplaceAll(string(listed), "\r\n", "\n"))
		if diff := diff(strings.Split(text, "\n"), lists[path]); diff != "" {
			fmt.Fprintf(&b, "%s and the code differ:\n%s", filepath.ToSlash(file), diff)
		}
	}
	for _, platform := range platforms[1:] {
		others, err := s.list(platform, module, patterns...)
		if err != nil {
			return "", err
		}
		for _, path := range slices.Sorted(maps.Keys(lists)) {
			if diff := diff(lists[path], others[path]); diff != "" {
				fmt.Fprintf(&b, "%s exports other names for %s than for %s:\n%s", path, platform, platforms[0], diff)
			}
		}
	}
	return b.String(), nil
}
