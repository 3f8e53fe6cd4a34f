// spectra.jsonl: singular values, one line a reading that carries them, under the key of its row in signatures.csv.
//
//   {"step":10,"layer":"fc1","side":"fisher","source":"read","fisher_kind":"exact","spectrum":[3.5,0.1]}
//
// signatures.csv is the truth. The lines stand in the order of its rows, and each is written before its row. So no row
// lacks its spectrum, and what a crash can leave is lines without a row at the end of the file.
#pragma once

#include <cstddef>
#include <dds/signature.hpp>
#include <filesystem>
#include <string>
#include <vector>

namespace dds::log {

/// The line of a signature, with its line end; empty if it has no numbers or carries no spectrum.
std::string spectrum_line(const Signature& signature);

/// Puts the spectra of the file into their rows. Returns the bytes up to the end of the last line that has a row; what
/// follows is of no row. A line without `spectrum` is passed over: signatures.jsonl, which held the spectra up to
/// version 2, has a line for every row. Throws IoError naming the file and the line.
std::size_t take_spectra(const std::filesystem::path& path, std::vector<Signature>& signatures);

}  // namespace dds::log
