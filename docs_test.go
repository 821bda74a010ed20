package hertznet_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// markdown is a Markdown file of this repository.
type markdown struct {
	file  string // from the root, with slashes
	lines []string
	code  []bool // of lines: within a fence, or a fence itself
	fence []fence
}

// fence is a block of code between two lines of ```.
type fence struct {
	language string
	given    string // from the comment before it
	first    int    // number of the first line of code, from 1
	indent   int    // of the fence, which its code has too
	lines    []string
}

func (f fence) text() string { return strings.Join(f.lines, "\n") + "\n" }

func (m *markdown) at(line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", m.file, line, fmt.Sprintf(format, args...))
}

var (
	fenceLine = regexp.MustCompile("^( *)```([a-z]*)$")
	givenLine = regexp.MustCompile(`^ *<!-- given: (.*) -->$`)
	spanCode  = regexp.MustCompile("`[^`]+`")
)

// repositoryFiles calls f for the files of the repository. Folders of the go command's
// and of version control are left out.
func repositoryFiles(t *testing.T, f func(name string) error) {
	t.Helper()
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (d.Name()[0] == '.' || d.Name()[0] == '_' || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		return f(name)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// readMarkdown reads every Markdown file.
func readMarkdown(t *testing.T) (all []*markdown) {
	t.Helper()
	repositoryFiles(t, func(name string) error {
		if path.Ext(name) != ".md" {
			return nil
		}
		b, err := os.ReadFile(filepath.FromSlash(name))
		if err != nil {
			return err
		}
		m, err := parseMarkdown(name, string(b))
		all = append(all, m)
		return err
	})
	if !slices.ContainsFunc(all, func(m *markdown) bool { return m.file == "README.md" }) {
		t.Fatal("there is no README.md")
	}
	return all
}

func parseMarkdown(name, text string) (*markdown, error) {
	m := &markdown{file: name, lines: strings.Split(text, "\n")}
	var open *fence
	given := ""
	for i, line := range m.lines {
		at := fenceLine.FindStringSubmatch(line)
		m.code = append(m.code, open != nil || at != nil)
		switch {
		case open == nil && at != nil:
			open = &fence{language: at[2], given: given, first: i + 2, indent: len(at[1])}
		case open != nil && at != nil && at[2] == "":
			m.fence, open = append(m.fence, *open), nil
		case open != nil:
			open.lines = append(open.lines, line[min(open.indent, len(line)-len(strings.TrimLeft(line, " "))):])
		}
		given = ""
		if g := givenLine.FindStringSubmatch(line); g != nil {
			given = g[1]
		}
	}
	if open != nil {
		return m, m.at(open.first-1, "this ``` is not closed")
	}
	return m, nil
}

// snippetImports are the packages that a piece of a program in Markdown may use without
// importing them.
var snippetImports = map[string]string{
	"app":         "github.com/cloudwego/hertz/pkg/app",
	"atomic":      "sync/atomic",
	"client":      "github.com/cloudwego/hertz/pkg/app/client",
	"context":     "context",
	"errors":      "errors",
	"exec":        "os/exec",
	"expvar":      "expvar",
	"fmt":         "fmt",
	"hertznet":    module,
	"http3":       module + "/quic/http3",
	"io":          "io",
	"net":         "net",
	"network":     module + "/network",
	"networktest": module + "/network/networktest",
	"os":          "os",
	"quic":        module + "/quic",
	"server":      "github.com/cloudwego/hertz/pkg/app/server",
	"slog":        "log/slog",
	"standard":    module + "/standard",
	"sync":        "sync",
	"testing":     "testing",
	"time":        "time",
	"tls":         "crypto/tls",
	"tlsconn":     module + "/tlsconn",
}

// snippet makes a Go file of a fence.
//
//   - One that begins with a package clause is the file.
//   - One that is declarations gets a package clause, and imports.
//   - All else are statements, and get a function too, in which a variable that is only
//     set counts as used.
//
// What a piece takes for given is declared in a comment in the line before the fence,
// which readers of the page do not see:
//
//	<!-- given: ln net.Listener; cmd *exec.Cmd -->
//
// The compiler reports the lines of the Markdown file.
func snippet(m *markdown, f fence) ([]byte, error) {
	absolute, err := filepath.Abs(filepath.FromSlash(m.file))
	if err != nil {
		return nil, err
	}
	line := fmt.Sprintf("//line %s:%d\n", absolute, f.first)
	whole := line + f.text()
	fset := token.NewFileSet()
	if _, err := parser.ParseFile(fset, "", whole, parser.PackageClauseOnly); err == nil {
		if f.given != "" {
			return nil, m.at(f.first, "a whole program is given nothing")
		}
		return []byte(whole), nil
	}
	declared := ""
	if f.given != "" {
		declared = fmt.Sprintf("//line %s:%d\nvar (%s)\n", absolute, f.first-2, f.given)
	}
	body := line + f.text()
	file, err := parser.ParseFile(fset, "", "package p\n"+declared+body, parser.SkipObjectResolution)
	if err != nil {
		used := ""
		if file, err = parser.ParseFile(fset, "", "package p\n"+declared+"func _() {\n"+body+"}", parser.SkipObjectResolution); err != nil {
			return nil, err // names the file and the line by itself
		}
		for _, name := range setBy(file.Decls[len(file.Decls)-1].(*ast.FuncDecl).Body.List) {
			used += "_ = " + name + "\n"
		}
		body = "func _() {\n" + body + used + "}\n"
	}
	var b bytes.Buffer
	b.WriteString("package p\n")
	imported := make(map[string]bool)
	ast.Inspect(file, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := s.X.(*ast.Ident); ok && snippetImports[x.Name] != "" {
			imported[x.Name] = true
		}
		return true
	})
	for _, name := range slices.Sorted(maps.Keys(imported)) {
		fmt.Fprintf(&b, "import %s %q\n", name, snippetImports[name])
	}
	b.WriteString(declared + body)
	return b.Bytes(), nil
}

// setBy returns the variables that the statements declare.
func setBy(statements []ast.Stmt) (names []string) {
	for _, s := range statements {
		var found []ast.Expr
		switch s := s.(type) {
		case *ast.AssignStmt:
			if s.Tok == token.DEFINE {
				found = s.Lhs
			}
		case *ast.DeclStmt:
			for _, spec := range s.Decl.(*ast.GenDecl).Specs {
				if v, ok := spec.(*ast.ValueSpec); ok {
					for _, name := range v.Names {
						found = append(found, name)
					}
				}
			}
		}
		for _, x := range found {
			if name, ok := x.(*ast.Ident); ok && name.Name != "_" {
				names = append(names, name.Name)
			}
		}
	}
	return names
}

// Every piece of Go in a Markdown file compiles, in the module that has what it imports.
func TestGoInMarkdownCompiles(t *testing.T) {
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := make(map[string]string)      // of the overlay: a file of a module, and where it really is
	patterns := make(map[string][]string) // by the folder of the module
	for _, m := range readMarkdown(t) {
		for _, f := range m.fence {
			if f.language != "go" {
				continue
			}
			b, err := snippet(m, f)
			if err != nil {
				t.Error(err)
				continue
			}
			of := "."
			if bytes.Contains(b, []byte(`"`+module+`/quic`)) {
				of = "quic"
			}
			// A package in a folder that only the overlay has.
			name := "markdown_" + strings.Map(func(r rune) rune {
				if unicode.IsLetter(r) {
					return r
				}
				return '_'
			}, strings.TrimSuffix(m.file, ".md")) + "_" + strconv.Itoa(f.first)
			file := filepath.Join(dir, name+".go")
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			files[filepath.Join(root, of, name, "p.go")] = file
			patterns[of] = append(patterns[of], "./"+name)
		}
	}
	if len(files) < 8 {
		t.Fatalf("only %d pieces of Go were found", len(files))
	}
	overlay, err := json.Marshal(map[string]any{"Replace": files})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	for of, patterns := range patterns {
		cmd := exec.Command("go", append([]string{"build", "-o", os.DevNull, "-overlay", overlayFile}, patterns...)...)
		cmd.Dir = of
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("go build of the Go in Markdown files, in module folder %s: %v\n%s"+
				"A name that is undefined may be missing in snippetImports, or in a comment in the line before the fence:\n"+
				"<!-- given: ln net.Listener -->", of, err, bytes.ReplaceAll(out, []byte(root+string(filepath.Separator)), nil))
		}
	}
}

func byFile(files []*markdown) map[string]*markdown {
	byName := make(map[string]*markdown)
	for _, m := range files {
		byName[m.file] = m
	}
	return byName
}

var (
	headingLine = regexp.MustCompile(`^(#{1,6}) +(.*?)[ #]*$`)
	inlineLink  = regexp.MustCompile(`\[[^\]]*\]\(([^()\s]*(?:\([^()\s]*\))?[^()\s]*)(?: "[^"]*")?\)`)
	definedLink = regexp.MustCompile(`^ *\[[^\]]+\]: +(\S+)`)
	htmlLink    = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
	autoLink    = regexp.MustCompile(`<(https?://[^ >]*)>`)
)

// anchors returns the fragments by which GitHub links to the headings of a file: in lower
// case, without punctuation, with - for each space, and a number for what comes again.
func (m *markdown) anchors() map[string]bool {
	anchors := make(map[string]bool)
	for i, line := range m.lines {
		h := headingLine.FindStringSubmatch(line)
		if h == nil || m.code[i] {
			continue
		}
		text := inlineLink.ReplaceAllStringFunc(h[2], func(link string) string {
			return link[1:strings.Index(link, "]")]
		})
		slug := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r):
				return unicode.ToLower(r)
			}
			return -1
		}, text)
		name := slug
		for n := 1; anchors[name]; n++ {
			name = slug + "-" + strconv.Itoa(n)
		}
		anchors[name] = true
	}
	return anchors
}

// Every link in a Markdown file leads to a file of the repository, and if it says so to a
// heading in it. One to elsewhere need only be a URL: tests do without a network.
func TestMarkdownLinks(t *testing.T) {
	files := readMarkdown(t)
	byName := byFile(files)
	links := 0
	for _, m := range files {
		for i, line := range m.lines {
			if m.code[i] {
				continue
			}
			line = spanCode.ReplaceAllString(line, "`x`")
			for _, link := range []*regexp.Regexp{inlineLink, definedLink, htmlLink, autoLink} {
				for _, found := range link.FindAllStringSubmatch(line, -1) {
					links++
					if err := checkLink(byName, m, found[1]); err != nil {
						t.Error(m.at(i+1, "link to %s: %v", found[1], err))
					}
				}
			}
		}
	}
	if links < 20 {
		t.Errorf("only %d links were found", links)
	}
}

func checkLink(files map[string]*markdown, from *markdown, link string) error {
	u, err := url.Parse(link)
	switch {
	case err != nil:
		return err
	case u.Scheme == "mailto" && strings.Contains(u.Opaque, "@"):
		return nil
	case u.Scheme != "" && (u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || !strings.Contains(u.Hostname(), ".")):
		return errors.New("it is no URL of the web")
	case u.Scheme != "":
		return nil
	case path.IsAbs(u.Path) || u.Host != "":
		return errors.New("write a path from this file's folder")
	}
	target := from.file
	if u.Path != "" {
		target = path.Join(path.Dir(from.file), u.Path)
	}
	if !filepath.IsLocal(filepath.FromSlash(target)) {
		return errors.New("it leads out of the repository")
	}
	if _, err := os.Stat(filepath.FromSlash(target)); err != nil {
		return errors.New("there is no such file")
	}
	if u.Fragment == "" {
		return nil
	}
	m := files[target]
	if m == nil {
		return errors.New("only Markdown files have headings")
	}
	if anchors := m.anchors(); !anchors[u.Fragment] {
		return fmt.Errorf("there is no such heading; there are %q", slices.Sorted(maps.Keys(anchors)))
	}
	return nil
}

// commandLine is a go run or go test that begins a line of a fence, or some code in a line,
// in some environment.
var commandLine = regexp.MustCompile(`^(?:[A-Z_]+=\S+ )*go (run|test)((?: .*)?)$`)

// Every go run and go test in a Markdown file names a folder of the repository, from the
// root, from the file's folder or from a module's; a program of ours defines the flags
// that it is given; and a test that is named exists.
func TestCommandsInMarkdown(t *testing.T) {
	var modules []string // their folders
	repositoryFiles(t, func(name string) error {
		if path.Base(name) == "go.mod" {
			modules = append(modules, path.Dir(name))
		}
		return nil
	})
	commands := 0
	for _, m := range readMarkdown(t) {
		for i, line := range m.lines {
			candidates := []string{strings.TrimSpace(line)}
			if !m.code[i] {
				candidates = nil
				for _, code := range spanCode.FindAllString(line, -1) {
					candidates = append(candidates, strings.Trim(code, "`"))
				}
			}
			for _, candidate := range candidates {
				command := commandLine.FindStringSubmatch(candidate)
				if command == nil {
					continue
				}
				commands++
				if err := checkCommand(t, m, modules, command[1], words(command[2])); err != nil {
					t.Error(m.at(i+1, "%s: %v", candidate, err))
				}
			}
		}
	}
	if commands < 15 {
		t.Errorf("only %d commands were found", commands)
	}
}

var shellWord = regexp.MustCompile(`(?:'[^']*'|"[^"]*"|[^\s'"])+`)

// words parts a command as a shell does; a comment ends it.
func words(command string) (words []string) {
	for _, word := range shellWord.FindAllString(command, -1) {
		if word[0] == '#' {
			break
		}
		words = append(words, strings.NewReplacer("'", "", `"`, "").Replace(word))
	}
	return words
}

// valueless are the flags of go run and go test in use that stand alone.
var valueless = map[string]bool{"race": true, "short": true, "v": true, "benchmem": true, "failfast": true}

// runFlags take a pattern of tests.
var runFlags = map[string]string{"run": "Test|Example|Fuzz", "bench": "Benchmark", "fuzz": "Fuzz"}

func checkCommand(t *testing.T, m *markdown, modules []string, verb string, args []string) error {
	patterns := make(map[string]string) // by flag
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		name, value, ok := strings.Cut(strings.TrimLeft(args[0], "-"), "=")
		args = args[1:]
		if !ok && !valueless[name] {
			if len(args) == 0 {
				return fmt.Errorf("-%s has no value", name)
			}
			value, args = args[0], args[1:]
		}
		if runFlags[name] != "" {
			patterns[name] = value
		}
	}
	if verb == "run" {
		if len(args) == 0 {
			return errors.New("it names no package")
		}
		if !strings.HasPrefix(args[0], ".") {
			if strings.Contains(args[0], "@") {
				return nil // of elsewhere, with a version
			}
			return fmt.Errorf("%s: write ./ in front of a folder, or a version behind a package", args[0])
		}
		dir, err := packageFolder(m, modules, args[0])
		if err != nil {
			return err
		}
		return checkFlags(dir, false, args[1:])
	}
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		args = append([]string{"."}, args...)
	}
	tests := ""
	for i, arg := range args {
		if strings.HasPrefix(arg, "-") { // the rest is for flags of the tests
			dir, err := packageFolder(m, modules, args[0])
			if err != nil {
				return err
			}
			return checkFlags(dir, true, args[i:])
		}
		dir, err := packageFolder(m, modules, arg)
		if err != nil {
			return err
		}
		tests += testNames(t, dir, strings.HasSuffix(arg, "..."))
	}
	for name, value := range patterns {
		pattern, _, _ := strings.Cut(value, "/")
		if pattern == "^$" {
			continue
		}
		match, err := regexp.Compile(pattern)
		if err != nil {
			return err
		}
		found := slices.ContainsFunc(strings.Fields(tests), func(test string) bool {
			return regexp.MustCompile("^("+runFlags[name]+")").MatchString(test) && match.MatchString(test)
		})
		if !found {
			return fmt.Errorf("-%s %s: no test is called so", name, value)
		}
	}
	return nil
}

// packageFolder returns the folder of a package or of a pattern.
func packageFolder(m *markdown, modules []string, pattern string) (string, error) {
	dir := strings.TrimSuffix(strings.TrimSuffix(pattern, "..."), "/")
	folders := []string{".", path.Dir(m.file)}
	if dir == "." {
		slices.Reverse(folders) // it is that of the file, if there is a package
	} else {
		folders = append(folders, modules...)
	}
	for _, from := range folders {
		at := filepath.Join(filepath.FromSlash(from), filepath.FromSlash(dir))
		found, err := filepath.Glob(filepath.Join(at, "*.go"))
		if err != nil {
			return "", err
		}
		if _, err := os.Stat(filepath.Join(at, "go.mod")); len(found) > 0 || err == nil {
			return at, nil
		}
	}
	return "", fmt.Errorf("%s is no folder with a package", pattern)
}

// testNames returns the names of the functions in the test files of a folder.
func testNames(t *testing.T, dir string, below bool) (names string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != dir && !below {
			return fs.SkipDir
		}
		if !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
				names += f.Name.Name + " "
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// checkFlags looks for flags among the arguments that the program in a folder, or its
// tests, do not define.
func checkFlags(dir string, tests bool, args []string) error {
	defined := map[string]bool{"help": true, "h": true}
	program := false
	found, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	for _, name := range found {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if strings.HasSuffix(name, "_test.go") != tests {
			continue
		}
		program = program || tests || file.Name.Name == "main"
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if name, ok := flagName(call); ok {
					defined[name] = true
				}
			}
			return true
		})
	}
	if !program {
		return fmt.Errorf("%s is no program", dir)
	}
	for _, arg := range args {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if strings.HasPrefix(arg, "-") && !defined[name] {
			return fmt.Errorf("flag -%s is not defined; there are %q", name, slices.Sorted(maps.Keys(defined)))
		}
	}
	return nil
}

var flagFunc = regexp.MustCompile(`^(Bool|Duration|Float64|Func|Int|Int64|String|Text|Uint|Uint64|BoolFunc)(Var)?$|^Var$`)

// flagName returns the name of the flag that a call defines: of package flag, or of a
// FlagSet, which is known by what is called and by a name and a usage among the arguments.
func flagName(call *ast.CallExpr) (string, bool) {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !flagFunc.MatchString(f.Sel.Name) {
		return "", false
	}
	at := 0
	if strings.HasSuffix(f.Sel.Name, "Var") {
		at = 1
	}
	if len(call.Args) < at+2 {
		return "", false
	}
	name, ok := call.Args[at].(*ast.BasicLit)
	if !ok || name.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(name.Value)
	return text, err == nil
}
