// One item of each operator, from the caller's arrays to the caller's arrays, on the lanes of one group. The
// launchers of every device run this text; what they add is who works on which item, and on what memory.
//
// An operator is a struct of static functions:
//   nodes(args)                      the largest problem of the batch
//   sides(args, item, a, b)          the masses of an item; false where an index points outside its table
//   take(arena, most, args, ...)     the work space for problems of up to `most`
//   solve(g, args, terms, item, w)   the item on the lanes g, which sync() before they use the work space again
#pragma once

#include "entropic_items.h"
#include "fgw_items.h"
#include "kl_transport_item.h"
#include "semirelaxed_item.h"
#include "table_items.h"
#include "transport_item.h"
#include "unbalanced_item.h"
