// How rows are written into a message to another rank. LayerRows::pack and unpack are of this format too.
#pragma once

#include <dds/signature_options.hpp>
#include <dds/triangular.hpp>

#include "src/model/cancellation.hpp"
#include "src/ranks/parcel.hpp"
#include "src/rows/reading_rows.hpp"

namespace dds {

// What is unpacked comes from outside this process: each function throws RankError for bytes that do not hold together.

/// A factor of more rows than columns is triangular, and only its triangle is written.
void pack(const TriangularAccumulator& accumulator, Parcel& parcel);
TriangularAccumulator unpack_factor(Parcel& parcel);

void pack(const Cancellation& cancellation, Parcel& parcel);
Cancellation unpack_cancellation(Parcel& parcel);

void pack(const FisherLabels& labels, Parcel& parcel);
FisherLabels unpack_labels(Parcel& parcel);

void pack(const ReadingRows::Layer& layer, Parcel& parcel);
ReadingRows::Layer unpack_layer(Parcel& parcel, const SignatureOptions& options);

}  // namespace dds
