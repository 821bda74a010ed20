//go:build !unix || aix || solaris

package standard

// lockDir does nothing: other processes are not kept out.
func lockDir(string) (unlock func()) { return func() {} }
