// Dead-Direction Signatures for LibTorch: everything.
#pragma once

#include <dds/correlation.hpp>
#include <dds/decay.hpp>
#include <dds/directions.hpp>
#include <dds/error.hpp>
#include <dds/export.hpp>
#include <dds/fit.hpp>
#include <dds/hooks.hpp>
#include <dds/interrupt.hpp>
#include <dds/learning_coefficient.hpp>
#include <dds/llc.hpp>
#include <dds/log.hpp>
#include <dds/logger.hpp>
#include <dds/model.hpp>
#include <dds/monitor.hpp>
#include <dds/order.hpp>
#include <dds/per_sample.hpp>
#include <dds/read.hpp>
#include <dds/recorder.hpp>
#include <dds/report.hpp>
#include <dds/script.hpp>
#include <dds/signature.hpp>
#include <dds/spectrum.hpp>
#include <dds/triangular.hpp>
#include <dds/weight_direction.hpp>
#include <dds/window.hpp>
