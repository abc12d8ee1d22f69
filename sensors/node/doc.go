// Package node models what no sensor of a machine sees: fans, disks, network,
// the board, and the loss of the power supplies. It is for machines without a
// meter of the whole node.
//
//	P_node = (P_sensed + Base) / Efficiency
//
// # Basics
//
// A [Profile] holds the two parameters, with an error band each. [For] chooses
// one of [Profiles] by what the machine is; [Fit] makes one from points that
// somebody read from a meter at the plug, and [Store] keeps it for the machine,
// where [Load] finds it.
//
//	points, err := node.ParsePoints(file) // columns sensed_w, wall_w
//	profile, quality, err := node.Fit(points)
//	watts := profile.Power(sensed)
//
// # Caveats
//
// A profile is valid for the components that were sensed when it was fitted:
// where a GPU has no sensor, its power is not in the model either. Only the
// desktop profile is a fit, and of one machine; the others are sums of parts, and
// their bands are judgement. In a virtual machine there is no profile, as a guest
// has a share of a node that it does not see.
//
// The model ends at the plug, where the facility's PUE begins. It is never a part
// of the PUE.
package node
