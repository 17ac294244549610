//go:build quern_broken_validity

package cache

// trustAll makes every stored answer valid, whatever it was made from.
const trustAll = true
