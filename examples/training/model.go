package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// shape is the size of a network: Bengio et al., "A Neural Probabilistic Language
// Model", JMLR 3 (2003), with characters for words.
type shape struct {
	alphabet  int // characters
	context   int // of them that the network sees
	embedding int // numbers that stand for a character
	hidden    int // units of the hidden layer
}

// weights are the numbers of a network, or their gradients: views of one slice,
// so that the optimiser and the gradient check see a plain vector.
type weights struct {
	all        []float64
	embedding  *mat.Dense // alphabet × embedding
	hidden     *mat.Dense // context·embedding × hidden
	hiddenBias []float64
	out        *mat.Dense // hidden × alphabet
	outBias    []float64
}

func newWeights(s shape) weights {
	inputs := s.context * s.embedding
	var w weights
	w.all = make([]float64, s.alphabet*s.embedding+(inputs+1)*s.hidden+(s.hidden+1)*s.alphabet)
	rest := w.all
	vector := func(n int) []float64 {
		v := rest[:n:n]
		rest = rest[n:]
		return v
	}
	w.embedding = mat.NewDense(s.alphabet, s.embedding, vector(s.alphabet*s.embedding))
	w.hidden = mat.NewDense(inputs, s.hidden, vector(inputs*s.hidden))
	w.hiddenBias = vector(s.hidden)
	w.out = mat.NewDense(s.hidden, s.alphabet, vector(s.hidden*s.alphabet))
	w.outBias = vector(s.alphabet)
	return w
}

// network predicts the next character from those before it. It is for one
// goroutine, and uses all processors itself.
type network struct {
	shape
	weights
	gradient weights // of the mean loss of the last batch
	shards   []*shard
}

// shard computes a part of a batch, on one processor. The parts have a fixed
// size, and their results are added in order, so that a network does not depend
// on the number of processors.
type shard struct {
	shape
	weights  weights // the network's, which nobody writes to meanwhile
	gradient weights // of the sum of the losses
	sum      float64 // of the losses, in nats

	// What it computes in. The rows are examples.
	input, active, logits *mat.Dense
	dInput, dActive       *mat.Dense
}

// shardSize is the number of examples in a shard: enough for the matrix products
// to be efficient, few enough for a batch to have a shard for every processor of
// a small machine.
const shardSize = 32

// newNetwork returns a network with random weights, for batches of up to batch
// examples.
func newNetwork(s shape, batch int, random *rand.Rand) *network {
	inputs := s.context * s.embedding
	n := &network{shape: s, weights: newWeights(s), gradient: newWeights(s)}
	// Scaled so that a layer's output varies as much as its input does (LeCun).
	randomise(n.weights.embedding, 1, random)
	randomise(n.weights.hidden, 1/math.Sqrt(float64(inputs)), random)
	randomise(n.weights.out, 1/math.Sqrt(float64(s.hidden)), random)
	for from := 0; from < batch; from += shardSize {
		n.shards = append(n.shards, &shard{
			shape: s, weights: n.weights, gradient: newWeights(s),
			input: mat.NewDense(shardSize, inputs, nil), dInput: mat.NewDense(shardSize, inputs, nil),
			active: mat.NewDense(shardSize, s.hidden, nil), dActive: mat.NewDense(shardSize, s.hidden, nil),
			logits: mat.NewDense(shardSize, s.alphabet, nil),
		})
	}
	return n
}

func randomise(m *mat.Dense, deviation float64, random *rand.Rand) {
	values := m.RawMatrix().Data
	for i := range values {
		values[i] = deviation * random.NormFloat64()
	}
}

// inShards lets the shards work on a part of a batch each, at the same time, and
// returns the sum of the losses and the shards that had something to do.
func (n *network) inShards(batch []int, work func(s *shard, part []int)) (sum float64, busy []*shard) {
	var wait sync.WaitGroup
	for len(batch) > 0 {
		s, part := n.shards[len(busy)], batch[:min(shardSize, len(batch))]
		batch, busy = batch[len(part):], append(busy, s)
		wait.Go(func() { work(s, part) })
	}
	wait.Wait()
	for _, s := range busy {
		sum += s.sum
	}
	return sum, busy
}

// loss returns the sum of the cross-entropies, in nats, of the examples at some
// positions of a text, at most a batch of them.
func (n *network) loss(c *corpus, batch []int) float64 {
	sum, _ := n.inShards(batch, func(s *shard, part []int) { s.forward(c, part) })
	return sum
}

// backward returns what loss does, and leaves the gradient of the mean loss in
// n.gradient.
func (n *network) backward(c *corpus, batch []int) float64 {
	sum, busy := n.inShards(batch, func(s *shard, part []int) { s.backward(c, part) })
	clear(n.gradient.all)
	for _, s := range busy {
		floats.AddScaled(n.gradient.all, 1/float64(len(batch)), s.gradient.all)
	}
	return sum
}

// forward computes the logits of the examples at some positions, and the sum of
// their losses.
func (s *shard) forward(c *corpus, positions []int) (input, active, logits *mat.Dense) {
	input, active, logits = rows(s.input, len(positions)), rows(s.active, len(positions)), rows(s.logits, len(positions))
	for i, at := range positions {
		before, _ := c.example(at)
		row := input.RawRowView(i)
		for j, character := range before {
			copy(row[j*s.embedding:], s.weights.embedding.RawRowView(character))
		}
	}
	active.Mul(input, s.weights.hidden)
	for i := range positions {
		row := active.RawRowView(i)
		for j, bias := range s.weights.hiddenBias {
			row[j] = math.Tanh(row[j] + bias)
		}
	}
	logits.Mul(active, s.weights.out)
	s.sum = 0
	for i, at := range positions {
		_, next := c.example(at)
		row := logits.RawRowView(i)
		floats.Add(row, s.weights.outBias)
		s.sum += logSumExp(row) - row[next]
	}
	return input, active, logits
}

// backward computes the gradient of the sum of the losses.
func (s *shard) backward(c *corpus, positions []int) {
	input, active, logits := s.forward(c, positions)
	g := s.gradient
	clear(g.all)

	// The derivative of the loss by a logit is the probability that the network
	// gives its character, less 1 for the right one.
	for i, at := range positions {
		_, next := c.example(at)
		row := logits.RawRowView(i)
		total := logSumExp(row)
		for j, logit := range row {
			row[j] = math.Exp(logit - total)
		}
		row[next]--
		floats.Add(g.outBias, row)
	}
	g.out.Mul(active.T(), logits)

	dActive := rows(s.dActive, len(positions))
	dActive.Mul(logits, s.weights.out.T())
	for i := range positions {
		row := dActive.RawRowView(i)
		for j, a := range active.RawRowView(i) {
			row[j] *= 1 - a*a // the derivative of tanh
		}
		floats.Add(g.hiddenBias, row)
	}
	g.hidden.Mul(input.T(), dActive)

	dInput := rows(s.dInput, len(positions))
	dInput.Mul(dActive, s.weights.hidden.T())
	for i, at := range positions {
		before, _ := c.example(at)
		row := dInput.RawRowView(i)
		for j, character := range before {
			floats.Add(g.embedding.RawRowView(character), row[j*s.embedding:(j+1)*s.embedding])
		}
	}
}

// rows returns the first rows of a matrix, for a batch that is not full.
func rows(m *mat.Dense, count int) *mat.Dense {
	_, columns := m.Dims()
	return m.Slice(0, count, 0, columns).(*mat.Dense)
}

// logSumExp returns log Σ exp(v). The largest is taken out first: exp(710) is
// more than a float64 holds.
func logSumExp(v []float64) float64 {
	largest := floats.Max(v)
	var sum float64
	for _, x := range v {
		sum += math.Exp(x - largest)
	}
	return largest + math.Log(sum)
}

// bitsPerCharacter returns the mean cross-entropy of examples in bits: what an
// ideal compressor with this network would need for a character.
func (n *network) bitsPerCharacter(c *corpus, positions []int) float64 {
	var sum float64
	for at := 0; at < len(positions); at += n.batch() {
		sum += n.loss(c, positions[at:min(at+n.batch(), len(positions))])
	}
	return sum / float64(len(positions)) / math.Ln2
}

// batch returns how many examples the network takes at once.
func (n *network) batch() int { return len(n.shards) * shardSize }

// sample continues the text before a position by characters that the network
// draws. At a low temperature it prefers the likely ones more.
func (n *network) sample(c *corpus, at, characters int, temperature float64, random *rand.Rand) []int {
	own := &corpus{text: slices.Clone(c.text[at-c.context : at]), context: c.context}
	for range characters {
		// An example has a right answer, here any: the loss is not looked at.
		own.text = append(own.text, 0)
		last := len(own.text) - 1
		_, _, logits := n.shards[0].forward(own, []int{last})
		row := logits.RawRowView(0)
		floats.Scale(1/temperature, row)
		own.text[last] = draw(row, random)
	}
	return own.text[c.context:]
}

// draw returns an index with the probability that its logit says.
func draw(logits []float64, random *rand.Rand) int {
	left, total := random.Float64(), logSumExp(logits)
	for i, logit := range logits {
		if left -= math.Exp(logit - total); left < 0 {
			return i
		}
	}
	return len(logits) - 1
}

// adam is the optimiser of Kingma and Ba, "Adam: A Method for Stochastic
// Optimization" (2015), with the constants of the paper.
type adam struct {
	mean, square []float64 // running means of the gradient and of its square
	steps        int
}

func newAdam(parameters int) *adam {
	return &adam{mean: make([]float64, parameters), square: make([]float64, parameters)}
}

// step moves the parameters against the gradient, each by about rate.
func (a *adam) step(rate float64, parameters, gradient []float64) {
	const decayMean, decaySquare, epsilon = 0.9, 0.999, 1e-8
	a.steps++
	// The running means begin at 0: this takes it out again.
	rate *= math.Sqrt(1-math.Pow(decaySquare, float64(a.steps))) / (1 - math.Pow(decayMean, float64(a.steps)))
	for i, g := range gradient {
		a.mean[i] = decayMean*a.mean[i] + (1-decayMean)*g
		a.square[i] = decaySquare*a.square[i] + (1-decaySquare)*g*g
		parameters[i] -= rate * a.mean[i] / (math.Sqrt(a.square[i]) + epsilon)
	}
}
