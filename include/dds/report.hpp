// From a run directory: the report, a page with every chart, and the count of directions that die. The run may still be
// being written.
#pragma once

#include <dds/decay.hpp>
#include <dds/export.hpp>
#include <filesystem>
#include <vector>

namespace DDS_EXPORT dds {

/// Writes `report.html` into a run directory that log::directory (<dds/log.hpp>) made. The page is one file that works
/// offline. It has
///   charts over steps, per layer: sigma_min with its floor, lambda_min+, log det+ per dimension, dead directions;
///   the LLC with error bars, on the same axis of steps;
///   a table of rank correlations with intervals;
///   what each reading cost.
/// Result: the path of the page. The file is replaced whole or not at all.
/// Throws IoError if the directory holds no run or cannot be written, or if a file in it is malformed (the message
/// names file and line).
std::filesystem::path write_report(const std::filesystem::path& run_directory);

/// The same for several runs, in the same charts with one colour per run. The page is written to the file `page`.
/// Throws as above, and InvalidArgument if no run is given or one is given twice.
std::filesystem::path write_report(const std::vector<std::filesystem::path>& run_directories,
                                   const std::filesystem::path& page);

/// Counts the directions that die in each series of the run, from its log alone. Monitor::decay_counts() gives the same
/// during training.
/// Input: a log with spectra (SignatureOptions::spectra). Result: one count for each series that has spectra.
/// Throws InvalidArgument for options out of range and for a log without any spectrum, and IoError as above.
std::vector<DecayCount> decay_counts(const std::filesystem::path& run_directory, DecayOptions options = {});

}  // namespace dds
