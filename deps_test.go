package hertznet_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const (
	module      = "github.com/hertznet/hertznet"
	hertzModule = "github.com/cloudwego/hertz"
)

// standalone are the packages, with those in folders below them, that a person
// can use without Hertz and without any module but this one.
var standalone = []string{"network", "tlsconn", "standard"}

// layers says what the packages of each folder may import of this module,
// besides packages of the same folder, and whether they may import Hertz.
// The longest folder counts. Imports point one way: network <- tlsconn <-
// standard <- the root <- examples.
var layers = map[string]struct {
	ours  []string
	hertz bool
}{
	"internal/api":        {},
	"network":             {},
	"network/networktest": {ours: []string{"network"}},
	"tlsconn":             {ours: []string{"network"}},
	"standard":            {ours: []string{"network", "tlsconn"}},
	".":                   {ours: []string{"network", "tlsconn", "standard"}, hertz: true},
	"examples":            {ours: []string{"network", "network/networktest", "tlsconn", "standard", "."}, hertz: true},
}

// goPackage is a package as the go command lists it; imports leaves out those
// of its tests.
type goPackage struct {
	path     string
	standard bool
	imports  []string
}

// platforms are listed one after the other, since a file for one platform may
// import what the others do not.
var platforms = []string{"linux", "darwin", "freebsd", "windows"}

// listPackages lists the packages that the patterns name, and with deps all
// that they depend on.
func listPackages(t *testing.T, goos string, deps bool, patterns ...string) []goPackage {
	t.Helper()
	args := []string{"list", "-f", `{{.ImportPath}} {{.Standard}} {{join .Imports ","}}`}
	if deps {
		args = append(args, "-deps")
	}
	cmd := exec.Command("go", append(args, patterns...)...)
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH=amd64", "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("GOOS=%s go %s: %v", goos, strings.Join(cmd.Args[1:], " "), describe(err))
	}
	var packages []goPackage
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		if len(fields) != 3 {
			t.Fatalf("go list printed %q, want an import path, a boolean and the imports", line)
		}
		p := goPackage{path: fields[0], standard: fields[1] == "true"}
		if fields[2] != "" {
			p.imports = strings.Split(fields[2], ",")
		}
		packages = append(packages, p)
	}
	return packages
}

// folder returns the folder of this module that holds the package: "." for the
// root. ok is false for packages of elsewhere.
func folder(importPath string) (dir string, ok bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// within reports whether the path is the folder or lies below it. Only the
// root itself is within the root.
func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

// layerOf returns the folder in layers to which the folder of a package
// belongs, or "".
func layerOf(dir string) (layer string) {
	for name := range layers {
		if within(dir, name) && len(name) > len(layer) {
			layer = name
		}
	}
	return layer
}

// findings collects what is wrong, and on which platforms.
type findings map[string][]string

func (f findings) add(goos, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	f[message] = append(f[message], goos)
}

func (f findings) report(t *testing.T) {
	t.Helper()
	for _, message := range slices.Sorted(maps.Keys(f)) {
		t.Errorf("%s (for %s)", message, strings.Join(f[message], ", "))
	}
}

// TestStandaloneDependencies: network, its conformance kit, tlsconn and
// standard depend on the standard library and on one another, and on nothing
// else, directly or not.
func TestStandaloneDependencies(t *testing.T) {
	var patterns []string
	for _, dir := range standalone {
		// A folder that gets another name is missed here, but not by the layers.
		if _, err := os.Stat(dir); err == nil {
			patterns = append(patterns, "./"+dir+"/...")
		}
	}
	if len(patterns) == 0 {
		t.Fatalf("none of the folders %q is here", standalone)
	}
	found := make(findings)
	for _, goos := range platforms {
		packages := listPackages(t, goos, true, patterns...)
		allowed := make(map[string]bool)
		for _, p := range packages {
			_, ours := folder(p.path)
			allowed[p.path] = p.standard || ours
		}
		for _, p := range packages {
			if _, ours := folder(p.path); !ours {
				continue
			}
			for _, imported := range p.imports {
				if !allowed[imported] {
					found.add(goos, "%s imports %s, which is neither the standard library's nor this module's", p.path, imported)
				}
			}
		}
	}
	found.report(t)
}

// TestImportsPointOneWay holds every package of the module to layers, and so
// also says that Hertz is imported by the root, by examples and by tests alone,
// and that nothing but tests imports any other module.
func TestImportsPointOneWay(t *testing.T) {
	found := make(findings)
	for _, goos := range platforms {
		packages := listPackages(t, goos, true, "./...")
		standard := make(map[string]bool)
		for _, p := range packages {
			standard[p.path] = p.standard
		}
		for _, p := range packages {
			dir, ours := folder(p.path)
			if !ours {
				continue
			}
			layer := layerOf(dir)
			if layer == "" {
				found.add(goos, "%s: no layer says what it may import; add its folder to layers", p.path)
				continue
			}
			rules := layers[layer]
			for _, imported := range p.imports {
				of, ours := folder(imported)
				switch {
				case standard[imported]:
				case ours:
					if layerOf(of) != layer && !slices.Contains(rules.ours, of) {
						found.add(goos, "%s imports %s; packages in %s may import of this module only %q", p.path, imported, layer, rules.ours)
					}
				case !within(imported, hertzModule):
					found.add(goos, "%s imports %s; of other modules, only Hertz may be imported outside of tests", p.path, imported)
				case !rules.hertz:
					found.add(goos, "%s imports %s; outside of tests, only the root and examples may know Hertz", p.path, imported)
				}
			}
		}
	}
	found.report(t)
}
