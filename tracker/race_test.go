//go:build race

package tracker

// raceEnabled is set where the race detector makes everything ten times slower.
const raceEnabled = true
