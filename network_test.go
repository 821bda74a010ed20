package hertznet_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	hertz "github.com/cloudwego/hertz/pkg/network"

	"github.com/hertznet/hertznet/network"
)

const (
	ourNetwork   = "github.com/hertznet/hertznet/network"
	theirNetwork = "github.com/cloudwego/hertz/pkg/network"
)

// These interfaces name only types of the standard library in their methods,
// so a value of one is a value of the other. The compiler holds both ways.
var (
	_ network.Reader              = hertz.Reader(nil)
	_ hertz.Reader                = network.Reader(nil)
	_ network.Writer              = hertz.Writer(nil)
	_ hertz.Writer                = network.Writer(nil)
	_ network.ReadWriter          = hertz.ReadWriter(nil)
	_ hertz.ReadWriter            = network.ReadWriter(nil)
	_ network.ExtWriter           = hertz.ExtWriter(nil)
	_ hertz.ExtWriter             = network.ExtWriter(nil)
	_ network.Conn                = hertz.Conn(nil)
	_ hertz.Conn                  = network.Conn(nil)
	_ network.ConnTLSer           = hertz.ConnTLSer(nil)
	_ hertz.ConnTLSer             = network.ConnTLSer(nil)
	_ network.HandleSpecificError = hertz.HandleSpecificError(nil)
	_ hertz.HandleSpecificError   = network.HandleSpecificError(nil)
	_ network.ErrorNormalization  = hertz.ErrorNormalization(nil)
	_ hertz.ErrorNormalization    = network.ErrorNormalization(nil)
	_ network.ApplicationError    = hertz.ApplicationError(nil)
	_ hertz.ApplicationError      = network.ApplicationError(nil)

	_ = network.OnData(hertz.OnData(nil))
	_ = hertz.OnData(network.OnData(nil))
)

// typePair is a type of ours and the type of Hertz's that it must equal.
type typePair struct{ ours, theirs reflect.Type }

func pair[Ours, Theirs any]() typePair {
	return typePair{reflect.TypeFor[Ours](), reflect.TypeFor[Theirs]()}
}

var types = []typePair{
	pair[network.ApplicationError, hertz.ApplicationError](),
	pair[network.Conn, hertz.Conn](),
	pair[network.ConnTLSer, hertz.ConnTLSer](),
	pair[network.DialFunc, hertz.DialFunc](),
	pair[network.Dialer, hertz.Dialer](),
	pair[network.ErrorNormalization, hertz.ErrorNormalization](),
	pair[network.ExtWriter, hertz.ExtWriter](),
	pair[network.HandleSpecificError, hertz.HandleSpecificError](),
	pair[network.OnData, hertz.OnData](),
	pair[network.ReadWriter, hertz.ReadWriter](),
	pair[network.Reader, hertz.Reader](),
	pair[network.ReceiveStream, hertz.ReceiveStream](),
	pair[network.SendStream, hertz.SendStream](),
	pair[network.Stream, hertz.Stream](),
	pair[network.StreamConn, hertz.StreamConn](),
	pair[network.Streamer, hertz.Streamer](),
	pair[network.Transporter, hertz.Transporter](),
	pair[network.Writer, hertz.Writer](),
}

var constants = map[string]struct{ ours, theirs any }{
	"VersionTLS":     {network.VersionTLS, hertz.VersionTLS},
	"VersionDraft29": {network.VersionDraft29, hertz.VersionDraft29},
	"Version1":       {network.Version1, hertz.Version1},
	"Version2":       {network.Version2, hertz.Version2},
}

// notOurs are functions: helpers of Hertz's own transports, which no
// implementation of the interfaces has to provide.
var notOurs = []string{"NewWriter", "UnlinkUdsFile"}

// TestTypesEqualHertz compares each type of package network with Hertz's type
// of that name: the same methods, none missing and none added, with the same
// parameters and results once package network is read as Hertz's.
func TestTypesEqualHertz(t *testing.T) {
	for _, p := range types {
		t.Run(p.theirs.Name(), func(t *testing.T) {
			for _, d := range nameDifference(p) {
				t.Error(d)
			}
			for _, d := range differences(p.ours, p.theirs) {
				t.Error(d)
			}
		})
	}
}

func TestConstantsEqualHertz(t *testing.T) {
	for name, c := range constants {
		// Comparing as any compares the constants' types as well.
		if c.ours != c.theirs {
			t.Errorf("%s is %T(%#[2]x), Hertz's is %T(%#[3]x)", name, c.ours, c.theirs)
		}
	}
}

// TestNothingOfHertzIsMissing reads the source of both packages, so that a
// declaration which a new version of Hertz adds, or drops, fails here.
func TestNothingOfHertzIsMissing(t *testing.T) {
	covered := slices.Clone(notOurs)
	for _, p := range types {
		covered = append(covered, p.theirs.Name())
	}
	for name := range constants {
		covered = append(covered, name)
	}
	theirs := exportedNames(t, theirNetwork)
	for _, name := range theirs {
		if !slices.Contains(covered, name) {
			t.Errorf("Hertz declares network.%s, which this test does not compare: declare it in package network and add it to the tables above", name)
		}
	}
	for _, name := range covered {
		if !slices.Contains(theirs, name) {
			t.Errorf("Hertz no longer declares network.%s: drop it here", name)
		}
	}

	ours := append(exportedNames(t, ourNetwork), notOurs...)
	slices.Sort(ours)
	if !slices.Equal(ours, theirs) {
		t.Errorf("package network and the functions left out are\n%s\nHertz's package is\n%s", ours, theirs)
	}
}

// TestDifferencesAreSeen gives the comparison pairs that differ in one respect
// each, lest it should have stopped looking.
func TestDifferencesAreSeen(t *testing.T) {
	type (
		missing interface {
			Malloc(n int) (buf []byte, err error)
			Flush() error
		}
		extra interface {
			hertz.Writer
			Reset()
		}
		parameter interface {
			Malloc(n int64) (buf []byte, err error)
			WriteBinary(b []byte) (n int, err error)
			Flush() error
		}
		result interface {
			Malloc(n int) (buf []byte, err error)
			WriteBinary(b []byte) (n int, err error)
			Flush()
		}
		renamed interface {
			Malloc(n int) (buf []byte, err error)
			Write(b []byte) (n int, err error)
			Flush() error
		}
		// A method that names Hertz's type where it must name ours.
		theirType interface {
			CloseWithError(err hertz.ApplicationError, errMsg string) error
		}
		ourType interface {
			CloseWithError(err network.ApplicationError, errMsg string) error
		}
		// A method that names another one of our types.
		otherType interface {
			CloseWithError(err network.Conn, errMsg string) error
		}
	)
	for _, test := range []struct {
		name string
		pair typePair
		want string // part of a difference; empty for none
	}{
		{"equal", pair[network.Writer, hertz.Writer](), ""},
		{"mapped", pair[ourType, theirType](), ""},
		{"missing method", pair[missing, hertz.Writer](), "WriteBinary is missing"},
		{"extra method", pair[extra, hertz.Writer](), "Reset is not in Hertz's"},
		{"renamed method", pair[renamed, hertz.Writer](), "Write is not in Hertz's"},
		{"parameter", pair[parameter, hertz.Writer](), "parameter 1 of Malloc"},
		{"number of results", pair[result, hertz.Writer](), "Flush has 0 results"},
		{"not mapped", pair[theirType, theirType](), "parameter 1 of CloseWithError"},
		{"mapped to another", pair[otherType, theirType](), "parameter 1 of CloseWithError"},
		{"kind", pair[network.DialFunc, hertz.Dialer](), "func"},
		{"variadic", pair[func(...int), func([]int)](), "variadic"},
		{"channel direction", pair[func(<-chan int), func(chan int)](), "parameter 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := strings.Join(differences(test.pair.ours, test.pair.theirs), "; ")
			if test.want == "" && got != "" {
				t.Errorf("differences: %s, want none", got)
			}
			if !strings.Contains(got, test.want) {
				t.Errorf("differences: %q, want %q among them", got, test.want)
			}
		})
	}

	if d := nameDifference(pair[network.Reader, hertz.Writer]()); len(d) == 0 {
		t.Error("nameDifference(Reader, Writer) found none")
	}
	if d := nameDifference(pair[hertz.Reader, hertz.Reader]()); len(d) == 0 {
		t.Error("nameDifference took Hertz's Reader for ours")
	}
}

// nameDifference reports whether the pair is one name in the two packages.
func nameDifference(p typePair) []string {
	if p.ours.PkgPath() != ourNetwork || p.theirs.PkgPath() != theirNetwork || p.ours.Name() != p.theirs.Name() {
		return []string{fmt.Sprintf("paired %s.%s with %s.%s", p.ours.PkgPath(), p.ours.Name(), p.theirs.PkgPath(), p.theirs.Name())}
	}
	return nil
}

// differences lists how the definitions of the two types differ.
func differences(ours, theirs reflect.Type) []string {
	if ours.Kind() != theirs.Kind() {
		return []string{fmt.Sprintf("%s is a %s, Hertz's %s a %s", ours, ours.Kind(), theirs, theirs.Kind())}
	}
	switch ours.Kind() {
	case reflect.Interface:
		return methodDifferences(ours, theirs)
	case reflect.Func:
		return signatureDifferences(ours.String(), ours, theirs)
	}
	return []string{fmt.Sprintf("%s is a %s, which this test cannot compare", ours, ours.Kind())}
}

// methodDifferences compares two interfaces' methods, those of embedded
// interfaces among them.
func methodDifferences(ours, theirs reflect.Type) (diffs []string) {
	for i := range theirs.NumMethod() {
		m := theirs.Method(i)
		own, ok := ours.MethodByName(m.Name)
		if !ok {
			diffs = append(diffs, m.Name+" is missing")
			continue
		}
		diffs = append(diffs, signatureDifferences(m.Name, own.Type, m.Type)...)
	}
	for i := range ours.NumMethod() {
		if name := ours.Method(i).Name; !hasMethod(theirs, name) {
			diffs = append(diffs, name+" is not in Hertz's")
		}
	}
	return diffs
}

func hasMethod(t reflect.Type, name string) bool {
	_, ok := t.MethodByName(name)
	return ok
}

func parameters(f reflect.Type) (types []reflect.Type) {
	for i := range f.NumIn() {
		types = append(types, f.In(i))
	}
	return types
}

func results(f reflect.Type) (types []reflect.Type) {
	for i := range f.NumOut() {
		types = append(types, f.Out(i))
	}
	return types
}

func signatureDifferences(name string, ours, theirs reflect.Type) (diffs []string) {
	if ours.IsVariadic() != theirs.IsVariadic() {
		diffs = append(diffs, fmt.Sprintf("of %s and Hertz's, only one is variadic", name))
	}
	for _, side := range []struct {
		what         string
		ours, theirs []reflect.Type
	}{
		{"parameter", parameters(ours), parameters(theirs)},
		{"result", results(ours), results(theirs)},
	} {
		if len(side.ours) != len(side.theirs) {
			diffs = append(diffs, fmt.Sprintf("%s has %d %ss, Hertz's has %d", name, len(side.ours), side.what, len(side.theirs)))
			continue
		}
		for i := range side.ours {
			if !sameType(side.ours[i], side.theirs[i]) {
				diffs = append(diffs, fmt.Sprintf("%s %d of %s is %s, Hertz's is %s", side.what, i+1, name, side.ours[i], side.theirs[i]))
			}
		}
	}
	return diffs
}

// sameType reports whether the two are one type once package network stands
// for Hertz's. What two types of that name contain is for their own pair to
// compare.
func sameType(ours, theirs reflect.Type) bool {
	if ours.PkgPath() == ourNetwork || theirs.PkgPath() == theirNetwork {
		return len(nameDifference(typePair{ours, theirs})) == 0
	}
	if ours == theirs && ours.Name() != "" {
		return true // of the standard library, or predeclared
	}
	if ours.Name() != "" || theirs.Name() != "" || ours.Kind() != theirs.Kind() {
		return false
	}
	switch ours.Kind() {
	case reflect.Array:
		return ours.Len() == theirs.Len() && sameType(ours.Elem(), theirs.Elem())
	case reflect.Chan:
		return ours.ChanDir() == theirs.ChanDir() && sameType(ours.Elem(), theirs.Elem())
	case reflect.Map:
		return sameType(ours.Key(), theirs.Key()) && sameType(ours.Elem(), theirs.Elem())
	case reflect.Pointer, reflect.Slice:
		return sameType(ours.Elem(), theirs.Elem())
	case reflect.Func, reflect.Interface:
		return len(differences(ours, theirs)) == 0
	}
	return false // a struct type without a name: Hertz has none
}

// exportedNames lists what the package declares for others, in order, from
// every file but the tests, whatever platform a file is for.
func exportedNames(t *testing.T, importPath string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", importPath).Output()
	if err != nil {
		t.Fatalf("go list %s: %v", importPath, describe(err))
	}
	dir := strings.TrimSpace(string(out))
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no Go files of %s in %s (%v)", importPath, dir, err)
	}
	var names []string
	add := func(id *ast.Ident) {
		if id.IsExported() {
			names = append(names, id.Name)
		}
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if decl.Recv == nil {
					add(decl.Name)
				}
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						add(spec.Name)
					case *ast.ValueSpec:
						for _, id := range spec.Names {
							add(id)
						}
					}
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// describe adds what a command wrote to standard error to the error of
// running it.
func describe(err error) error {
	if exit, ok := err.(*exec.ExitError); ok {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return err
}
