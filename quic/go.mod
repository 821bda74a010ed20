module github.com/hertznet/hertznet/quic

go 1.26.0

require (
	github.com/hertznet/hertznet v0.0.0
	github.com/quic-go/quic-go v0.65.0
	golang.org/x/net v0.58.0
)

require (
	golang.org/x/crypto v0.55.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

replace github.com/hertznet/hertznet => ../
