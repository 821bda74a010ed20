package hertznet_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"strings"
	"testing"
)

// Every name that a package of this repository exports has a comment: packages, types,
// functions, methods, fields, constants, variables. In a group, a name belongs to the one
// above if no empty line is between them. Programs export nothing.
func TestExportedNamesHaveComments(t *testing.T) {
	fset := token.NewFileSet()
	packages := make(map[string][]*ast.File)
	repositoryFiles(t, func(name string) error {
		if path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err == nil && file.Name.Name != "main" {
			packages[path.Dir(name)] = append(packages[path.Dir(name)], file)
		}
		return err
	})
	if len(packages) < 7 {
		t.Errorf("only %d packages were found", len(packages))
	}
	names := 0
	for dir, files := range packages {
		documented := false
		c := comments{fset: fset, found: func(pos token.Pos, what string) {
			t.Errorf("%s: %s has no comment", fset.Position(pos), what)
		}}
		for _, file := range files {
			documented = documented || file.Doc != nil
			for _, decl := range file.Decls {
				c.declaration(decl)
			}
		}
		if !documented {
			t.Errorf("%s: package %s has no comment", dir, files[0].Name.Name)
		}
		names += c.names
	}
	if names < 400 {
		t.Errorf("only %d names were found", names)
	}
}

// comments looks for names without one.
type comments struct {
	fset  *token.FileSet
	names int
	found func(pos token.Pos, what string)
}

func (c *comments) declaration(decl ast.Decl) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		of := ""
		if d.Recv != nil {
			of = receiver(d.Recv.List[0].Type)
			if !ast.IsExported(of) {
				return
			}
			of += "."
		}
		c.name(d.Name, of, d.Doc != nil)
	case *ast.GenDecl:
		before := paragraph{end: c.line(d.Pos()), documented: d.Doc != nil}
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				c.name(s.Name, "", s.Doc != nil || !d.Lparen.IsValid() && d.Doc != nil)
				if s.Name.IsExported() {
					c.members(s.Name.Name+".", s.Type)
				}
			case *ast.ValueSpec:
				documented := before.add(c, s, s.Doc, s.Comment)
				for _, name := range s.Names {
					c.name(name, "", documented)
				}
			}
		}
	}
}

// members looks at the fields of a struct and the methods of an interface.
func (c *comments) members(of string, x ast.Expr) {
	var list *ast.FieldList
	switch x := x.(type) {
	case *ast.StructType:
		list = x.Fields
	case *ast.InterfaceType:
		list = x.Methods
	default:
		return
	}
	before := paragraph{end: c.line(list.Opening)}
	for _, field := range list.List {
		documented := before.add(c, field, field.Doc, field.Comment)
		for _, name := range field.Names { // what is embedded has none, and its own comment
			c.name(name, of, documented)
			if name.IsExported() {
				c.members(of+name.Name+".", field.Type)
			}
		}
	}
}

func (c *comments) name(name *ast.Ident, of string, documented bool) {
	if !name.IsExported() {
		return
	}
	c.names++
	if !documented {
		c.found(name.Pos(), of+name.Name)
	}
}

func (c *comments) line(pos token.Pos) int { return c.fset.Position(pos).Line }

// paragraph is where the last one of a group ended, and whether its first has a comment.
type paragraph struct {
	end        int
	documented bool
}

// add goes on with the next of the group and returns whether it counts as documented.
func (p *paragraph) add(c *comments, n ast.Node, doc, comment *ast.CommentGroup) bool {
	begin := c.line(n.Pos())
	if doc != nil {
		begin = c.line(doc.Pos())
	}
	if begin > p.end+1 {
		p.documented = false
	}
	p.documented = p.documented || doc != nil || comment != nil
	p.end = c.line(n.End())
	return p.documented
}

func receiver(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.StarExpr:
		return receiver(x.X)
	case *ast.IndexExpr:
		return receiver(x.X)
	case *ast.IndexListExpr:
		return receiver(x.X)
	case *ast.Ident:
		return x.Name
	}
	return ""
}
