module github.com/hertznet/hertznet

go 1.25.0

require (
	github.com/cloudwego/hertz v0.10.4
	golang.org/x/net v0.58.0
)

require github.com/bytedance/gopkg v0.1.3 // indirect
