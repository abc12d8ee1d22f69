package main

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

// opticks is Newton's own text: data/README.md says what of it, and from where.
//
//go:embed data/opticks.txt
var opticks string

// corpus is a text as a network reads it: every character is a number, and every
// position with enough characters before it is an example.
type corpus struct {
	alphabet []rune // the characters of the text, sorted
	text     []int  // indices into alphabet
	context  int    // characters before a position that the network sees
	split    int    // text before it is for training, the rest for validation
}

// validationShare is the part of the text, at its end, that is kept from
// training. A random choice of positions would be no test: its neighbours, whose
// contexts are the same characters, would have been trained on.
const validationShare = 0.1

// newCorpus prepares a text.
func newCorpus(text string, context int) (*corpus, error) {
	runes := []rune(text)
	c := &corpus{alphabet: slices.Clone(runes), context: context}
	slices.Sort(c.alphabet)
	c.alphabet = slices.Compact(c.alphabet)
	c.split = len(runes) - int(validationShare*float64(len(runes)))
	if len(runes)-c.split <= context {
		return nil, fmt.Errorf("%d characters are too few: the tenth kept for validation must be longer than the context of %d",
			len(runes), context)
	}
	c.text = make([]int, len(runes))
	for i, r := range runes {
		c.text[i], _ = slices.BinarySearch(c.alphabet, r)
	}
	return c, nil
}

// training and validation return the positions of the characters to predict. No
// context reaches across the split: what is validated was never seen, not even as
// the context of something else.
func (c *corpus) training() []int   { return positions(c.context, c.split) }
func (c *corpus) validation() []int { return positions(c.split+c.context, len(c.text)) }

func positions(from, to int) []int {
	p := make([]int, 0, to-from)
	for i := from; i < to; i++ {
		p = append(p, i)
	}
	return p
}

// example returns the characters before a position and the one at it.
func (c *corpus) example(at int) (before []int, next int) {
	return c.text[at-c.context : at], c.text[at]
}

// decode returns the text that indices stand for.
func (c *corpus) decode(indices []int) string {
	var b strings.Builder
	for _, i := range indices {
		b.WriteRune(c.alphabet[i])
	}
	return b.String()
}
