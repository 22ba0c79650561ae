// A model file: its contract, and its graph on ONNX Runtime. Docs: docs/model-file.md.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <map>
#include <nlohmann/json.hpp>
#include <opencv2/core.hpp>
#include <string>
#include <vector>

#include "picture.hpp"

using Outputs = std::map<std::string, cv::Mat>;  // by name: float32, a map or one value

std::string sha256(const Bytes& data);

class Model {
public:
    // Throws std::runtime_error where the file is damaged or foreign.
    Model(Ort::Env& env, const std::string& path, int threads);

    Outputs run(const cv::Mat& image);  // 8-bit RGB, of the contract's size

    nlohmann::ordered_json contract;
    Geometry geometry;

private:
    Ort::Session session_{nullptr};
    std::vector<std::string> outputs_;
};
