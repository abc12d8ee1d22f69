// Package emissions turns joules into greenhouse gas emissions: where a job
// runs, the carbon intensity of that grid, the PUE of that site, and the model
// that applies both. It makes no network call, and no figure leaves it without
// its source.
//
// # Basics
//
// [Locate] finds the place, [NewModel] the factors of that place, and
// [Model.Apply] multiplies one window of measured energy with them:
//
//	loc, err := emissions.Locate(emissions.Location{}, emissions.Environment{})
//	model, err := emissions.NewModel(loc, emissions.Server)
//	footprint := model.Apply(start, end, joules, 0.05)
//	fmt.Println(footprint.Operational) // 1.23 kg CO2e
//
// Figures that the user knows better replace those of the tables, each on its
// own:
//
//	pue, err := emissions.DeclaredPUE(1.2)
//	model, err := emissions.NewModel(loc, emissions.Server, pue)
//
// # Caveats
//
// A [Factor] carries its [Kind]. Life-cycle and direct, average and marginal
// figures of one grid differ by up to a factor of ten, so figures that are to
// be compared have to pass [SameKind].
//
// PUE is applied exactly once, by [Model.Apply]. Energy that already contains
// it, as published totals often do, needs a declared PUE of 1.
//
// The tables are compiled into the program and parsed when first needed. A
// program that declares both of its factors never parses them.
package emissions
