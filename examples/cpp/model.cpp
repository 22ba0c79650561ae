#include "model.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <array>

namespace {

const std::string opening = R"({"format":"funduscope/1","sha256":")";
constexpr int digits = 64;  // of a SHA-256 in hex

// The digest in the contract is that of the whole file with its own digits taken as zeros. It tells damage, not malice.
void verify(Bytes data, const std::string& path) {
    const auto at = std::search(data.begin(), data.end(), opening.begin(), opening.end());
    if (data.end() - at < static_cast<long>(opening.size()) + digits)
        throw std::runtime_error(path + ": no Funduscope contract of the format funduscope/1 in it");
    const auto start = at + static_cast<long>(opening.size());
    const std::string stated(start, start + digits);
    std::fill(start, start + digits, '0');
    if (sha256(data) != stated) throw std::runtime_error(path + ": damaged: its SHA-256 does not match its contract");
}

}  // namespace

std::string sha256(const Bytes& data) {
    std::array<unsigned char, digits / 2> digest;
    if (!EVP_Digest(data.data(), data.size(), digest.data(), nullptr, EVP_sha256(), nullptr))
        throw std::runtime_error("OpenSSL computes no SHA-256");
    std::string hex;
    for (unsigned char own : digest) hex += {"0123456789abcdef"[own >> 4], "0123456789abcdef"[own & 15]};
    return hex;
}

Model::Model(Ort::Env& env, const std::string& path, int threads) {
    Bytes data;
    try {
        data = read_file(path);
    } catch (const Refused& refused) {
        throw std::runtime_error(path + ": " + refused.what());
    }
    verify(data, path);
    Ort::SessionOptions options;
    if (threads) options.SetIntraOpNumThreads(threads);
    options.DisableMemPattern();
    options.AddConfigEntry("session.force_spinning_stop", "1");  // idle, leave the cores to the other model
    options.AddConfigEntry("session.x64quantprecision", "1");    // without VNNI, int8 sums overflow otherwise
    session_ = Ort::Session(env, data.data(), data.size(), options);

    Ort::AllocatorWithDefaultOptions allocator;
    const auto document = session_.GetModelMetadata().LookupCustomMetadataMapAllocated("funduscope", allocator);
    if (!document) throw std::runtime_error(path + ": no contract in its metadata");
    contract = nlohmann::ordered_json::parse(document.get());
    const auto& part = contract.at("geometry");
    if (part.at("path") != "reduced-crop-pad-resize-2" && part.at("path") != "around-disc-1")
        throw std::runtime_error(path + ": another preparation than this program has: " + part.at("path").dump());
    geometry = {part.at("size"), part.at("fov_threshold"), part.value("diameters", 0.0)};
    for (size_t k = 0; k < session_.GetOutputCount(); ++k) {
        const auto type = session_.GetOutputTypeInfo(k);
        const auto tensor = type.GetTensorTypeAndShapeInfo();
        if (tensor.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT && tensor.GetShape().size() <= 3)
            outputs_.emplace_back(session_.GetOutputNameAllocated(k, allocator).get());
    }
}

Outputs Model::run(const cv::Mat& image) {
    const std::string input = contract.at("input").at("name");
    const std::array<int64_t, 4> shape = {1, image.rows, image.cols, 3};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    auto tensor = Ort::Value::CreateTensor<uint8_t>(memory, image.data, image.total() * 3, shape.data(), shape.size());
    std::vector<const char*> names;
    for (const std::string& own : outputs_) names.push_back(own.c_str());
    const char* inputs[] = {input.c_str()};
    auto values = session_.Run(Ort::RunOptions(), inputs, &tensor, 1, names.data(), names.size());
    Outputs found;
    for (size_t k = 0; k < values.size(); ++k) {
        auto sizes = values[k].GetTensorTypeAndShapeInfo().GetShape();
        sizes.resize(3, 1);  // a value for the picture, or a map
        const cv::Mat seen(static_cast<int>(sizes[1]), static_cast<int>(sizes[2]), CV_32F,
                           values[k].GetTensorMutableData<float>());
        if (!cv::checkRange(seen)) throw Refused("MODEL_NONFINITE", "the model gave NaN or infinity");
        found[outputs_[k]] = seen.clone();
    }
    return found;
}
