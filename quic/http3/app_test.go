package http3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/adaptor"
	"github.com/cloudwego/hertz/pkg/common/utils"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/cloudwego/hertz/pkg/protocol/consts"
	"github.com/cloudwego/hertz/pkg/protocol/http1/resp"
	"github.com/cloudwego/hertz/pkg/protocol/sse"
)

// application is one that knows nothing of HTTP/3.
func application(root string) func(h *server.Hertz) {
	return func(h *server.Hertz) {
		h.SetHTMLTemplate(template.Must(template.New("hello").Parse("<p>Hello, {{.}}!</p>")))
		h.Use(func(c context.Context, ctx *app.RequestContext) {
			ctx.Header("X-Before", string(ctx.Path()))
			ctx.Next(c)
			ctx.Header("X-After", fmt.Sprint(ctx.Response.StatusCode()))
		})
		h.StaticFS("/static", &app.FS{Root: root, AcceptByteRange: true})

		api := h.Group("/api", func(c context.Context, ctx *app.RequestContext) {
			if len(ctx.GetHeader("X-Token")) == 0 {
				ctx.AbortWithMsg("no token", consts.StatusUnauthorized)
			}
		})
		api.GET("/users/:name", func(_ context.Context, ctx *app.RequestContext) {
			ctx.JSON(200, utils.H{"name": ctx.Param("name"), "page": ctx.Query("page")})
		})
		api.POST("/json", func(_ context.Context, ctx *app.RequestContext) {
			var in struct {
				A int    `json:"a" vd:"$>0"`
				B string `json:"b"`
			}
			if err := ctx.BindAndValidate(&in); err != nil {
				ctx.String(400, "%v", err)
				return
			}
			ctx.JSON(201, in)
		})
		h.POST("/form", func(_ context.Context, ctx *app.RequestContext) {
			ctx.String(200, "%s %s", ctx.PostForm("x"), ctx.PostForm("y"))
		})
		h.POST("/upload", func(_ context.Context, ctx *app.RequestContext) {
			file, err := ctx.FormFile("file")
			if err != nil {
				ctx.String(400, "%v", err)
				return
			}
			f, err := file.Open()
			if err != nil {
				ctx.String(500, "%v", err)
				return
			}
			defer f.Close()
			b, _ := io.ReadAll(f)
			ctx.String(200, "%s %s %d %x", ctx.FormValue("title"), file.Filename, len(b), b[len(b)-4:])
		})
		h.Any("/echo", func(_ context.Context, ctx *app.RequestContext) {
			body, err := ctx.Body()
			if err != nil {
				ctx.String(500, "%v", err)
				return
			}
			ctx.Data(200, string(ctx.ContentType()), body)
		})
		h.GET("/headers", func(_ context.Context, ctx *app.RequestContext) {
			ctx.Response.Header.Add("X-Multi", "one")
			ctx.Response.Header.Add("X-Multi", "two")
			ctx.Response.Header.Set("X-Odd", "a\r\nb\tc")
			ctx.SetCookie("a", "1", 60, "/", "", protocol.CookieSameSiteLaxMode, true, true)
			ctx.SetCookie("b", "2", 0, "", "", protocol.CookieSameSiteDefaultMode, false, false)
			ctx.String(200, "%s|%s|%s|%s|%s|%s|%v", ctx.Host(), ctx.Cookie("k"), ctx.Cookie("l"), ctx.UserAgent(),
				ctx.Request.Header.Get("X-In"), ctx.Request.Header.GetAll("X-Many"), ctx.ClientIP())
		})
		h.GET("/status/:code", func(_ context.Context, ctx *app.RequestContext) {
			var code int
			fmt.Sscan(ctx.Param("code"), &code)
			ctx.SetStatusCode(code)
		})
		h.GET("/body/:code", func(_ context.Context, ctx *app.RequestContext) {
			var code int
			fmt.Sscan(ctx.Param("code"), &code)
			ctx.String(code, "a body")
		})
		h.GET("/redirect", func(_ context.Context, ctx *app.RequestContext) {
			ctx.Redirect(302, []byte("/echo?x=1"))
		})
		h.GET("/html", func(_ context.Context, ctx *app.RequestContext) {
			ctx.HTML(200, "hello", "<world>")
		})
		stream := func(known bool) app.HandlerFunc {
			return func(_ context.Context, ctx *app.RequestContext) {
				size := -1
				if known {
					size = 100000
				}
				ctx.SetBodyStream(strings.NewReader(strings.Repeat("0123456789", 10000)), size)
			}
		}
		h.GET("/stream/known", stream(true))
		h.HEAD("/stream/known", stream(true))
		h.GET("/stream/unknown", stream(false))
		h.GET("/trailer", func(_ context.Context, ctx *app.RequestContext) {
			_ = ctx.Response.Header.Trailer().Set("X-Sum", "")
			ctx.SetBodyStream(&hooked{strings.NewReader("body"), func() {
				_ = ctx.Response.Header.Trailer().Set("X-Sum", "42")
			}}, -1)
		})
		h.GET("/sse", func(_ context.Context, ctx *app.RequestContext) {
			w := sse.NewWriter(ctx)
			defer w.Close()
			for i := range 3 {
				_ = w.WriteEvent(fmt.Sprint(i), "tick", []byte("line 1\nline 2"))
			}
			_ = w.WriteKeepAlive()
		})
		h.GET("/chunked", func(_ context.Context, ctx *app.RequestContext) {
			ctx.Response.HijackWriter(resp.NewChunkedBodyWriter(&ctx.Response, ctx.GetWriter()))
			for i := range 5 {
				_, _ = ctx.Write(bytes.Repeat([]byte{byte('a' + i)}, 3000))
				_ = ctx.Flush()
			}
		})
		adapted := adaptor.HertzHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			w.Header().Set("X-Adapted", r.Method+" "+r.URL.RequestURI())
			w.Header().Add("Set-Cookie", "x=y")
			switch r.URL.Query().Get("how") {
			case "length":
				w.Header().Set("Content-Length", "5")
				fmt.Fprint(w, "fixed")
			case "none":
				w.WriteHeader(204)
			case "status":
				w.WriteHeader(418)
				fmt.Fprint(w, "short and stout")
			default:
				fmt.Fprintf(w, "%s tls=%v ", b, r.TLS != nil && false)
				w.(http.Flusher).Flush()
				fmt.Fprint(w, "and more")
			}
		}))
		h.Any("/adapted", adapted)
		h.GET("/close", func(_ context.Context, ctx *app.RequestContext) {
			ctx.SetConnectionClose()
			ctx.String(200, "closing")
		})
	}
}

// hooked calls a function at the end.
type hooked struct {
	io.Reader
	f func()
}

func (h *hooked) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	if err == io.EOF {
		h.f()
	}
	return n, err
}

func multipartBody(size int) (body, contentType string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	_ = w.SetBoundary("a-boundary")
	_ = w.WriteField("title", "a title")
	f, _ := w.CreateFormFile("file", "name.bin")
	_, _ = f.Write(bytes.Repeat([]byte{1, 2, 3, 4}, size/4))
	_ = w.Close()
	return b.String(), w.FormDataContentType()
}

// One application gives the same answers over HTTP/1.1, HTTPS and HTTP/3.
func TestSameAnswers(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "static"), 0o755); err != nil {
		t.Fatal(err)
	}
	modified := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, size := range map[string]int{"small.txt": 10, "large.bin": 1 << 20} {
		path := filepath.Join(root, "static", name)
		if err := errors.Join(os.WriteFile(path, bytes.Repeat([]byte("x"), size), 0o644), os.Chtimes(path, modified, modified)); err != nil {
			t.Fatal(err)
		}
	}
	upload, uploadType := multipartBody(100000)
	big := strings.Repeat("big ", 250000)
	tests := []struct {
		method, path, body string
		header             []string
		status             int
	}{
		{"GET", "/api/users/ann?page=3", "", []string{"X-Token", "t"}, 200},
		{"GET", "/api/users/%C3%A4%20b", "", []string{"X-Token", "t"}, 200},
		{"GET", "/api/users/ann", "", nil, 401},
		{"POST", "/api/json", `{"a": 1, "b": "two"}`, []string{"X-Token", "t", "Content-Type", "application/json"}, 201},
		{"POST", "/api/json", `{"a": `, []string{"X-Token", "t", "Content-Type", "application/json"}, 400},
		{"POST", "/form", "x=1&y=%20z", []string{"Content-Type", "application/x-www-form-urlencoded"}, 200},
		{"POST", "/upload", upload, []string{"Content-Type", uploadType}, 200},
		{"POST", "/upload", "--a-boundary\r\nnonsense", []string{"Content-Type", uploadType}, 400},
		{"POST", "/upload", "", nil, 400},
		{"GET", "/static/small.txt", "", nil, 200},
		{"HEAD", "/static/small.txt", "", nil, 200},
		{"GET", "/static/large.bin", "", nil, 200},
		{"GET", "/static/large.bin", "", []string{"Range", "bytes=100-199"}, 206},
		{"GET", "/static/small.txt", "", []string{"If-Modified-Since", modified.Format(http.TimeFormat)}, 304},
		{"GET", "/static/none.txt", "", nil, 404},
		{"GET", "/echo", "", nil, 200},
		{"POST", "/echo", "hello", []string{"Content-Type", "text/x"}, 200},
		{"POST", "/echo", "", nil, 200},
		{"PUT", "/echo", big, nil, 200},
		{"DELETE", "/echo", "", nil, 200},
		{"PATCH", "/echo", "p", nil, 200},
		{"OPTIONS", "/echo", "", nil, 200},
		{"POST", "/echo", strings.Repeat("x", 4<<20+1), nil, 413},
		{"POST", "/echo", "expected", []string{"Expect", "100-continue"}, 200},
		{"GET", "/headers", "", []string{"Cookie", "k=v; l=w", "User-Agent", "agent/1", "X-In", "in", "X-Many", "1", "X-Many", "2"}, 200},
		{"GET", "/headers", "", []string{"X-Forwarded-For", "192.0.2.7", "User-Agent", "agent/1"}, 200},
		{"GET", "/status/200", "", nil, 200},
		{"GET", "/status/204", "", nil, 204},
		{"GET", "/status/304", "", nil, 304},
		{"GET", "/status/500", "", nil, 500},
		{"GET", "/body/204", "", nil, 204},
		{"GET", "/body/304", "", nil, 304},
		{"GET", "/body/404", "", nil, 404},
		{"GET", "/redirect", "", nil, 302},
		{"GET", "/html", "", nil, 200},
		{"GET", "/stream/known", "", nil, 200},
		{"HEAD", "/stream/known", "", nil, 200},
		{"GET", "/stream/unknown", "", nil, 200},
		{"GET", "/trailer", "", nil, 200},
		{"GET", "/sse", "", nil, 200},
		{"GET", "/chunked", "", nil, 200},
		{"GET", "/adapted", "", nil, 200},
		{"POST", "/adapted?a=b", "content", nil, 200},
		{"GET", "/adapted?how=length", "", nil, 200},
		{"GET", "/adapted?how=none", "", nil, 204},
		{"GET", "/adapted?how=status", "", nil, 418},
		{"HEAD", "/adapted", "", nil, 200},
		{"GET", "/nowhere", "", nil, 404},
		{"GET", "/echo/", "", nil, 301},
		{"GET", "/close", "", nil, 200},
	}
	for _, streaming := range []bool{false, true} {
		t.Run(fmt.Sprintf("StreamRequestBody=%v", streaming), func(t *testing.T) {
			option := server.WithStreamBody(streaming)
			plain := servePlain(t, application(root), option)
			secure := serve(t, application(root), option)
			h1, h3 := newH1(t), newH3(t)
			for _, test := range tests {
				if streaming && test.status == 413 {
					test.status = 200
				}
				t.Run(test.method+" "+test.path, func(t *testing.T) {
					header := append([]string{"Host", "localhost"}, test.header...)
					want := must(t, h1, test.method, "http://"+plain.addr+test.path, test.body, header...)
					if want.status != test.status {
						t.Errorf("HTTP/1.1: status %d, want %d: %.200s", want.status, test.status, want.body)
					}
					normalize(want, plain.addr)
					for name, rt := range map[string]http.RoundTripper{"HTTPS": h1, "HTTP/3": h3} {
						got := must(t, rt, test.method, secure.url(test.path), test.body, header...)
						if proto := map[string]string{"HTTPS": "HTTP/1.1", "HTTP/3": "HTTP/3.0"}[name]; got.proto != proto {
							t.Errorf("%s: protocol %s", name, got.proto)
						}
						normalize(got, secure.addr)
						if !reflect.DeepEqual(got, want) {
							t.Errorf("%s differs from HTTP/1.1:\n got %s\nwant %s", name, got, want)
						}
					}
				})
			}
		})
	}
}

func (a *answer) String() string {
	return fmt.Sprintf("%d %v length=%d trailer=%v %d bytes %.200q", a.status, a.header, a.length, a.trailer, len(a.body), a.body)
}

// normalize drops what may differ.
func normalize(a *answer, addr string) {
	a.proto = ""
	for _, name := range []string{"Date", "Connection", "Keep-Alive", "Transfer-Encoding", "Alt-Svc"} {
		delete(a.header, name)
	}
	a.body = strings.ReplaceAll(a.body, addr, "ADDR")
	for _, values := range a.header {
		for i := range values {
			values[i] = strings.NewReplacer(addr, "ADDR", "https://", "http://").Replace(values[i])
		}
	}
	if len(a.trailer) == 0 {
		a.trailer = nil
	}
	if a.status == http.StatusNoContent || a.status == http.StatusNotModified {
		// No body has no length. Hertz's adaptor gives it one of 0, which RFC 9110, section
		// 8.6, forbids, and clients make different things of none.
		a.length = 0
		delete(a.header, "Content-Length")
	}
}
